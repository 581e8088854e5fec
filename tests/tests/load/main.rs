//! What keeps a whole machine busy, or measures time on it.

mod bench;
mod faults;
mod idle;
mod kill;
mod rate;
mod soak;
mod tus_model;
