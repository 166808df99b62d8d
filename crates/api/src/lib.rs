//! The gateway's HTTP API as types: no handler, no listener, no store.
//!
//! The API is IoT Hub's own HTTPS device API, completed. Where the hub has a call, its path, headers, body and
//! status codes are kept exactly; what it lacks stands beside it in the same style. Everything that a request or an
//! answer consists of has its name here, so that the server, the OpenAPI document and the tests cannot disagree:
//!
//! - [`Operation`]: every call, with its method and path, and whether it is served yet
//! - [`header`], [`query`], [`media_type`], [`limits`]: names and numbers
//! - [`Prefer`], [`IdempotencyKey`], [`etag`]: headers that have a grammar
//! - [`Problem`] and its [`Code`]: the one form of every error
//! - the bodies, a module per subject: [`telemetry`], [`twin`], [`method`], [`inbox`], [`file`](mod@file), [`sync`],
//!   [`token`], [`receipt`], [`push`]; and of the admin API, what it shows of the store: [`admin`]
//! - [`openapi_json`]: the document made of all this, committed as `openapi/tombolo.json`
//!
//! Bodies that devices send are read as [`Object`]s, and refuse members that they do not know, so that a misspelt option is no silent loss. The
//! bodies that IoT Hub defines pass over them, as the hub does.

pub mod admin;
mod body;
mod code;
pub mod etag;
pub mod file;
pub mod header;
mod idempotency;
pub mod inbox;
pub mod limits;
pub mod media_type;
pub mod method;
mod object;
mod openapi;
mod operation;
mod prefer;
mod problem;
pub mod push;
pub mod query;
pub mod receipt;
mod result;
pub mod sync;
mod system;
pub mod telemetry;
pub mod token;
pub mod twin;

pub use body::{Encoding, NotBase64};
pub use code::Code;
pub use idempotency::{IdempotencyKey, InvalidIdempotencyKey};
pub use object::Object;
pub use openapi::openapi_json;
pub use operation::{Method, Operation, Stage};
pub use prefer::{InvalidPrefer, Prefer, Wait};
pub use problem::Problem;
pub use result::{Delivery, ItemResult};
pub use system::SystemProperties;
