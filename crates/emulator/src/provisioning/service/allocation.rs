//! Which hub a device gets.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use iothub::HubName;

use super::{
    RegistrationId,
    enrollment::{Allocation, Policy},
};

/// Chooses among the hubs of an enrollment, or among all that are linked; none if there is none.
pub(super) fn choose<'a>(
    allocation: &'a Allocation,
    linked: &'a [HubName],
    id: &RegistrationId,
) -> Option<&'a HubName> {
    let hubs = match allocation.hubs.as_slice() {
        [] => linked,
        hubs => hubs,
    };
    match allocation.policy {
        Policy::Static => hubs.first(),
        Policy::Hashed | Policy::GeoLatency => {
            let mut hasher = DefaultHasher::new();
            id.folded().hash(&mut hasher);
            // By the highest of one hash per hub: a hub that comes or goes moves its own devices only.
            hubs.iter().max_by_key(|hub| {
                let mut hasher = hasher.clone();
                hub.hash(&mut hasher);
                hasher.finish()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hubs(names: &[&str]) -> Vec<HubName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn chosen(policy: Policy, among: &[&str], linked: &[&str], id: &str) -> Option<HubName> {
        let allocation = Allocation {
            policy,
            hubs: hubs(among),
        };
        choose(&allocation, &hubs(linked), &id.parse().unwrap()).cloned()
    }

    #[test]
    fn spreads_devices_evenly_and_by_name() {
        let linked = ["a.example", "b.example", "c.example"];
        let counts = linked.map(|hub| {
            let hub = hub.parse::<HubName>().ok();
            (0..3000)
                .filter(|n| chosen(Policy::Hashed, &[], &linked, &format!("reg-{n}")) == hub)
                .count()
        });
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
        assert_eq!(
            chosen(Policy::GeoLatency, &[], &linked, "Reg-1"),
            chosen(Policy::Hashed, &[], &linked, "reg-1")
        );
    }

    #[test]
    fn an_enrollment_narrows_the_choice() {
        let linked = ["a.example", "b.example"];
        for id in ["reg-1", "reg-2", "reg-3", "reg-4"] {
            assert_eq!(
                chosen(Policy::Hashed, &["b.example"], &linked, id),
                "b.example".parse().ok()
            );
        }
        assert_eq!(
            chosen(
                Policy::Static,
                &["b.example", "a.example"],
                &linked,
                "reg-1"
            ),
            "b.example".parse().ok()
        );
        assert_eq!(chosen(Policy::Hashed, &[], &[], "reg-1"), None);
    }
}
