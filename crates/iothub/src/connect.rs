//! Client id and username of an MQTT CONNECT.
//!
//! The host in the username is the hub's name, even when the connection goes elsewhere.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{DeviceId, Identity, InvalidHubName, InvalidId, ModuleId};

/// The api-version that the current documentation of the MQTT endpoint names.
pub const API_VERSION: &str = "2021-04-12";

/// What a CONNECT says of itself in its username.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Username {
    /// Who connects, at which hub.
    pub identity: Identity,
    /// `api-version`; absent in the oldest form.
    pub api_version: Option<String>,
    /// `DeviceClientType`: the client's own description.
    pub client_type: Option<String>,
    /// `model-id`: the DTDL model that the device announces.
    pub model_id: Option<String>,
}

/// Why a text is no username.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseUsernameError {
    /// Not `{hub}/{device}[/{module}][/?{query}]`.
    #[error("a username has the form {{hub}}/{{device}}[/{{module}}]/?api-version=...")]
    Form,
    /// The hub part.
    #[error("hub part of the username")]
    Hub(#[source] InvalidHubName),
    /// The device or module part.
    #[error("device or module part of the username")]
    Id(#[source] InvalidId),
}

impl Username {
    /// The username of a client that speaks [`API_VERSION`].
    #[must_use]
    pub fn new(identity: Identity, client_type: Option<String>) -> Self {
        Self {
            identity,
            api_version: Some(API_VERSION.to_owned()),
            client_type,
            model_id: None,
        }
    }

    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{}/{}/?", self.identity.hub(), self.identity.client_id());
        let mut separator = "";
        let pairs = [
            ("api-version", &self.api_version),
            ("model-id", &self.model_id),
            ("DeviceClientType", &self.client_type),
        ];
        for (key, value) in pairs {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _ = write!(
                    text,
                    "{separator}{key}={}",
                    utf8_percent_encode(value, ENCODED)
                );
                separator = "&";
            }
        }
        text
    }

    /// Reads the wire form in all the spellings that Microsoft's SDKs use: with or without `?`, with or without a
    /// query, with unknown keys (EdgeHub's `MqttUsernameParser`).
    ///
    /// # Errors
    ///
    /// The text has another form, or a part of it breaks its own rule.
    pub fn parse(text: &str) -> Result<Self, ParseUsernameError> {
        let (hub, rest) = text.split_once('/').ok_or(ParseUsernameError::Form)?;
        let hub = hub.parse().map_err(ParseUsernameError::Hub)?;
        let (device, rest) = rest
            .split_once('/')
            .map_or((rest, None), |(device, rest)| (device, Some(rest)));
        let device: DeviceId = device.parse().map_err(ParseUsernameError::Id)?;
        let (module, query) = split_module(rest.unwrap_or_default());
        let module: Option<ModuleId> = module
            .map(str::parse)
            .transpose()
            .map_err(ParseUsernameError::Id)?;
        if query.contains('/') && !query.contains('=') {
            return Err(ParseUsernameError::Form);
        }
        let identity = match module {
            None => Identity::device(hub, device),
            Some(module) => Identity::module(hub, device, module),
        };
        let mut username = Self {
            identity,
            api_version: None,
            client_type: None,
            model_id: None,
        };
        for (key, value) in query
            .trim_start_matches('?')
            .split('&')
            .filter_map(|pair| pair.split_once('='))
        {
            let value = Some(percent_decode_str(value).decode_utf8_lossy().into_owned());
            match key {
                "api-version" => username.api_version = value,
                "DeviceClientType" => username.client_type = value,
                "model-id" => username.model_id = value,
                _ => {}
            }
        }
        Ok(username)
    }
}

/// Divides what stands behind the device into module and query.
///
/// A module's id may look like a query, for `?` and `=` are in the id alphabet. So what comes behind it decides: one
/// part is a query if it looks like one, and of two parts the last is.
fn split_module(rest: &str) -> (Option<&str>, &str) {
    match rest.split_once('/') {
        None if rest.is_empty() || is_query(rest) => (None, rest),
        None => (Some(rest), ""),
        Some((module, query)) if is_query(query) || !is_query(module) => (Some(module), query),
        // A query with a raw '/' in one of its values.
        Some(_) => (None, rest),
    }
}

fn is_query(text: &str) -> bool {
    text.starts_with('?')
        || [
            "api-version=",
            "DeviceClientType=",
            "model-id=",
            "auth-chain=",
        ]
        .iter()
        .any(|key| text.starts_with(key))
}

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
