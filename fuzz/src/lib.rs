//! What is held against bytes from outside.
//!
//! Each target takes any bytes, hands them to parsers that meet strangers, and panics if a promise is broken: that no
//! bytes panic or hang, that what was read and written is read the same again, that how input is cut does not matter, and
//! what else the target's documentation names.
//!
//! The targets are ordinary functions. `fuzz_targets/` makes a libFuzzer program of each, `fuzz/explore` runs them, and
//! `tests/corpora` replays `corpus/`: seeds picked by hand, the golden vectors among them, and inputs that exploring has
//! found. An input that broke something is mended in the code and stays in the corpus.

mod head;
mod hub_life;
mod json;
mod packets;
mod query;
mod session_life;
mod steps;
mod text;

pub use self::{
    head::request_head,
    hub_life::hub_life,
    json::{batches, device_json, hub_json},
    query::query,
    session_life::session_life,
    text::{headers, names, property_bag, sas_token, topics, username},
};

/// What takes an input, and panics if a promise is broken.
pub type Target = fn(&[u8]);

/// Every target, by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("topics", topics),
    ("property_bag", property_bag),
    ("username", username),
    ("sas_token", sas_token),
    ("names", names),
    ("headers", headers),
    ("request_head", request_head),
    ("batches", batches),
    ("device_json", device_json),
    ("hub_json", hub_json),
    ("session_life", session_life),
    ("hub_life", hub_life),
    ("query", query),
];
