//! The embedded engine on bad days.

mod checker;
mod cuts;
mod disk;
mod golden;
mod inspection;
mod kill;
mod races;
mod restart;
mod rig;
