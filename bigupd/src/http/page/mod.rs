//! The page for visitors with a browser: a few files in the binary, served at `/` and `/page/`.
//!
//! The page speaks the native protocol and that of finished files, like any client. So nothing about uploads comes in
//! here: these are files, their types and the headers that keep the page to itself.

mod files;
pub mod response;
pub mod settings;
pub mod site;
