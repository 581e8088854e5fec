//! What a machine does to the programs: file systems, full disks, things in their folders that are none of theirs, power cuts,
//! networks, systemd. Most of it needs root.

mod disk_space;
mod filesystems;
mod hostile_local;
mod powercut;
mod service;
mod shared_spool;
mod store_space;
mod wan;
