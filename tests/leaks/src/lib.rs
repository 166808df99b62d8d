//! Finds secrets in what the tests of the suite log.
//!
//! ```text
//!    a test --record--> {program}-{process}.log      \
//!           --mark----> {program}-{process}.secrets   }--> the program `tombolo-leaks` --> leaks
//!    what foreign programs log, what tests print     /
//! ```
//!
//! `./test` names a folder in the environment ([`FOLDER`]). A test that runs a gateway or a hub [records](record()) what the
//! process logs from then on, at the most verbose level, and [marks](mark) the secrets that it works with. When all tests have
//! run, the program searches everything in the folder for every secret of every test, in every form in which it may have
//! slipped out ([`Secret`]), and for what looks like a secret though nobody has marked it ([`Shape`]).
//!
//! Without the variable nothing is written, and tests are as fast as ever.

mod record;
mod search;
mod secret;

pub use self::{
    record::{FOLDER, folder, keep, mark, mark_key, read_secrets, record},
    search::{Leak, Search, Shape, hits},
    secret::Secret,
};
