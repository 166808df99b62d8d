//! What every engine must keep.

mod clock;

pub use clock::ManualClock;
