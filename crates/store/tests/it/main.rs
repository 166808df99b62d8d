//! The crate as its users see it: the engines under the rules of the contract, the memory engine against a
//! model, and the embedded one on bad days.

mod conformance;
mod embedded;
mod model;
mod sizes;
