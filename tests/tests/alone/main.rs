//! What bears no other test in its process. It takes locks of files itself (flock(2)), and looks whether they are free: a
//! process that another test starts holds all that is open here for a moment, until it executes its program.

mod model;
