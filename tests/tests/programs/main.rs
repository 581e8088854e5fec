//! The real programs, each test with a daemon of its own. They wait more than they work, so that several run at once.

mod behind_a_proxy;
mod check;
mod documented_commands;
mod expiry;
mod hostile;
mod info_ini;
mod lifecycle;
mod limits;
mod metrics;
mod names;
mod on_begin;
mod on_complete;
mod pages;
mod push;
mod python_client;
mod requests;
mod resumable_uploads;
mod resume;
mod seed;
mod small;
mod status_cancel_pause;
mod terminal;
mod tls;
mod tokens;
mod tus_clients;
