//! `/emulator/usage`: what has been used of the tier's throttles and of the day's messages.

use axum::{Json, extract::State};

use super::Http;
use crate::hub::{Hub, UsageInfo};

pub(super) async fn read(State(http): State<Http>) -> Json<UsageInfo> {
    Json(http.shell.with(Hub::usage))
}
