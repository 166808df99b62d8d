//! The embedded engine on bad days.

mod checker;
mod cuts;
mod disk;
mod golden;
mod kill;
mod restart;
mod rig;
