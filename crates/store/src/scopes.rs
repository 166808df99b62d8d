//! Which parts of the device API a token opens.

use serde::{Deserialize, Serialize};

/// A part of the device API.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Sending telemetry.
    Telemetry,
    /// Receiving and settling cloud-to-device messages.
    Messages,
    /// Reading the twin and patching its reported properties.
    Twin,
    /// Receiving and answering direct methods.
    Methods,
    /// Uploading files.
    Files,
}

/// A set of [`Scope`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<Scope>", into = "Vec<Scope>")]
pub struct Scopes(u8);

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Telemetry,
        Self::Messages,
        Self::Twin,
        Self::Methods,
        Self::Files,
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Scopes {
    /// Every scope.
    pub const ALL: Self = Self((1 << Scope::ALL.len()) - 1);

    /// Whether the scope is one of these.
    #[must_use]
    pub const fn contain(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether all of these are among the others.
    #[must_use]
    pub const fn are_within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// The scopes, in the order of [`Scope`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .into_iter()
            .filter(move |scope| self.contain(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let bits = scopes.into_iter().map(Scope::bit);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

impl From<Vec<Scope>> for Scopes {
    fn from(scopes: Vec<Scope>) -> Self {
        scopes.into_iter().collect()
    }
}

impl From<Scopes> for Vec<Scope> {
    fn from(scopes: Scopes) -> Self {
        scopes.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let some = Scopes::from_iter([Scope::Files, Scope::Telemetry, Scope::Files]);
        assert!(some.contain(Scope::Files) && !some.contain(Scope::Twin));
        assert!(some.are_within(Scopes::ALL) && !Scopes::ALL.are_within(some));
        assert!(some.are_within(some));
        assert_eq!(
            some.iter().collect::<Vec<_>>(),
            [Scope::Telemetry, Scope::Files]
        );
        assert_eq!(Scope::ALL.into_iter().collect::<Scopes>(), Scopes::ALL);
    }

    #[test]
    fn a_set_is_written_as_a_list() {
        let text = serde_json::to_string(&Scopes::ALL).unwrap();
        assert_eq!(text, r#"["telemetry","messages","twin","methods","files"]"#);
        assert_eq!(serde_json::from_str::<Scopes>(&text).unwrap(), Scopes::ALL);
        assert!(serde_json::from_str::<Scopes>(r#"["all"]"#).is_err());
    }
}
