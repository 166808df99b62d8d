//! The crate as its users see it: the memory engine under the rules of the contract, and against a model.

mod conformance;
mod model;
