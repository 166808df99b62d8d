//! The configuration of `serve`.

mod layers;
mod mistakes;
mod rest;

pub use layers::Layers;
pub use mistakes::{Mistake, Mistakes, Origin};
