//! What the admin API can be asked.

use api::admin::Side;

/// A path of the admin API; what stands in it is as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call<'a> {
    /// `/healthz`
    Health,
    /// `/readyz`
    Ready,
    /// `/metrics`
    Metrics,
    /// `/admin/v1/tokens`
    Tokens,
    /// `/admin/v1/tokens/{id}`
    Token(&'a str),
    /// `/admin/v1/store`
    Store,
    /// `/admin/v1/outbox/devices`
    Backlog,
    /// `/admin/v1/{side}/dead-letters`
    DeadLetters(Side),
    /// `/admin/v1/devices/{device}`
    Device(&'a str),
    /// `/admin/v1/devices/{device}/{side}/dead-letters`
    DeadLettersOf(&'a str, Side),
    /// `/admin/v1/devices/{device}/{side}/dead-letters/replay`
    ReplayAll(&'a str, Side),
    /// `/admin/v1/devices/{device}/{side}/dead-letters/{id}`
    DeadLetter(&'a str, Side, &'a str),
    /// `/admin/v1/devices/{device}/{side}/dead-letters/{id}/replay`
    Replay(&'a str, Side, &'a str),
}

impl<'a> Call<'a> {
    /// The call of a path, if there is one.
    pub(super) fn of(path: &[&'a str]) -> Option<Self> {
        let path = match path {
            ["healthz"] => return Some(Self::Health),
            ["readyz"] => return Some(Self::Ready),
            ["metrics"] => return Some(Self::Metrics),
            ["admin", "v1", path @ ..] => path,
            _ => return None,
        };
        match *path {
            ["tokens"] => Some(Self::Tokens),
            ["tokens", id] => Some(Self::Token(id)),
            ["store"] => Some(Self::Store),
            ["outbox", "devices"] => Some(Self::Backlog),
            ["devices", device] => Some(Self::Device(device)),
            [side, "dead-letters"] => Side::named(side).map(Self::DeadLetters),
            ["devices", device, side, "dead-letters", ref path @ ..] => {
                let side = Side::named(side)?;
                match *path {
                    [] => Some(Self::DeadLettersOf(device, side)),
                    ["replay"] => Some(Self::ReplayAll(device, side)),
                    [id] => Some(Self::DeadLetter(device, side, id)),
                    [id, "replay"] => Some(Self::Replay(device, side, id)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Whether whoever asks needs no token.
    pub(super) const fn is_open_to_all(&self) -> bool {
        match self {
            Self::Health | Self::Ready => true,
            Self::Metrics
            | Self::Tokens
            | Self::Token(_)
            | Self::Store
            | Self::Backlog
            | Self::DeadLetters(_)
            | Self::Device(_)
            | Self::DeadLettersOf(..)
            | Self::ReplayAll(..)
            | Self::DeadLetter(..)
            | Self::Replay(..) => false,
        }
    }

    /// Its methods, as `Allow` lists them.
    pub(super) const fn allow(&self) -> &'static str {
        match self {
            Self::Health
            | Self::Ready
            | Self::Metrics
            | Self::Store
            | Self::Backlog
            | Self::DeadLetters(_)
            | Self::Device(_)
            | Self::DeadLettersOf(..) => "GET",
            Self::Tokens => "GET, POST",
            Self::Token(_) => "DELETE",
            Self::DeadLetter(..) => "GET, DELETE",
            Self::ReplayAll(..) | Self::Replay(..) => "POST",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_call_or_none() {
        let call = |path: &'static str| Call::of(&path.split('/').collect::<Vec<_>>());
        for (path, expected) in [
            ("healthz", Some(Call::Health)),
            ("admin/v1/tokens/t", Some(Call::Token("t"))),
            (
                "admin/v1/inbox/dead-letters",
                Some(Call::DeadLetters(Side::Inbox)),
            ),
            ("admin/v1/outbox/devices", Some(Call::Backlog)),
            (
                "admin/v1/devices/dead-letters",
                Some(Call::Device("dead-letters")),
            ),
            (
                "admin/v1/devices/d/outbox/dead-letters/7/replay",
                Some(Call::Replay("d", Side::Outbox, "7")),
            ),
            (
                "admin/v1/devices/d/inbox/dead-letters/replay",
                Some(Call::ReplayAll("d", Side::Inbox)),
            ),
            ("admin/v1/devices/d/dead-letters", None),
            ("admin/v1/devices/d/outbox", None),
            ("admin/v1/devices/d/both/dead-letters", None),
            ("admin/v1/both/dead-letters", None),
            ("admin/v1", None),
            ("admin/v2/tokens", None),
            ("healthz/x", None),
        ] {
            assert_eq!(call(path), expected, "{path}");
        }
    }
}
