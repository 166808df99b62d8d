//! The gateway's HTTP API as types, with its OpenAPI document.
