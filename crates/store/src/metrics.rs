//! What the engine with a disk measures. No label names a device.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Bytes of the log on the disk.
pub const BYTES: &str = "tombolo_store_bytes";
/// Records that were flushed.
pub const RECORDS: &str = "tombolo_store_records_total";
/// Time of a flush, which all records of a group wait for.
pub const FLUSH_SECONDS: &str = "tombolo_store_flush_seconds";
/// Segments of the log that had gone bad when room was made. Their files are set aside.
pub const DAMAGED_SEGMENTS: &str = "tombolo_store_damaged_segments_total";

/// Describes all of them to the recorder that is installed by now.
pub fn describe() {
    describe_gauge!(BYTES, Unit::Bytes, "Bytes of the store's log on the disk");
    describe_counter!(RECORDS, "Records that the store has flushed");
    describe_histogram!(
        FLUSH_SECONDS,
        Unit::Seconds,
        "Time of a flush of the store's log"
    );
    describe_counter!(
        DAMAGED_SEGMENTS,
        "Segments of the store's log that had gone bad when room was made"
    );
    // It is looked for, so it is there before anything happens.
    counter!(DAMAGED_SEGMENTS).absolute(0);
}

/// A group of records is flushed. The store is opened before there is a recorder, so handles are not kept.
pub(crate) fn flushed(records: usize, time: Duration) {
    counter!(RECORDS).increment(records as u64);
    histogram!(FLUSH_SECONDS).record(time);
}

/// The log has so many bytes.
pub(crate) fn has_bytes(bytes: u64) {
    gauge!(BYTES).set(bytes as f64);
}
