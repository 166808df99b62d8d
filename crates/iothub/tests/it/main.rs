//! The hub's words as their users see them, judged by vectors that are not ours.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

mod arbitrary;
mod bags;
mod golden;
mod messages;
mod signatures;
mod topics;
mod twins;
mod usernames;
