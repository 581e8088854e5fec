//! info_ini
