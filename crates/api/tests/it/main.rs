//! The crate's documents, as a reader of the repository finds them.

mod documents;
