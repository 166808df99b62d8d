//! What every entry has is small.

use tombolo_store::Outcome;

#[test]
fn an_outcome_is_small() {
    // It is moved through every ticket, and the last of a device are remembered.
    let size = size_of::<Outcome>();
    assert!(size <= 32, "{size} bytes");
}
