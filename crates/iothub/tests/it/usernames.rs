use proptest::{option, prelude::*};
use serde::Deserialize;
use tombolo_iothub::connect::Username;

use crate::{arbitrary, golden};

#[derive(Deserialize)]
struct Captured {
    from: String,
    username: String,
    device: String,
    module: Option<String>,
    api_version: Option<String>,
    client_type: Option<String>,
    model_id: Option<String>,
}

#[test]
fn usernames_are_read_as_every_sdk_writes_them() {
    for vector in golden::json::<Vec<Captured>>("usernames.json") {
        let name = Username::parse(&vector.username)
            .unwrap_or_else(|error| panic!("{}: {error}", vector.from));
        assert_eq!(
            name.identity.hub().as_str(),
            "test-hub.azure-devices.net",
            "{}",
            vector.from
        );
        assert_eq!(
            name.identity.device_id().as_str(),
            vector.device,
            "{}",
            vector.from
        );
        assert_eq!(
            name.identity.module_id().map(ToString::to_string),
            vector.module,
            "{}",
            vector.from
        );
        assert_eq!(name.api_version, vector.api_version, "{}", vector.from);
        assert_eq!(name.client_type, vector.client_type, "{}", vector.from);
        assert_eq!(name.model_id, vector.model_id, "{}", vector.from);
    }
}

#[test]
fn ours_is_the_documented_one() {
    let name = Username::parse("test-hub.azure-devices.net/dev1/").unwrap();
    let ours = Username::new(name.identity, None);
    assert_eq!(
        ours.encode(),
        "test-hub.azure-devices.net/dev1/?api-version=2021-04-12"
    );
}

#[test]
fn text_that_is_no_username_is_refused() {
    for text in [
        "",
        "hub",
        "hub/",
        "/dev1",
        "hub//x",
        "hub/dev1/mod1/extra/more",
        "hub/d v/?api-version=1",
        "h b/dev1",
    ] {
        assert!(Username::parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn every_username_comes_back(
        identity in arbitrary::identity(),
        api_version in option::of("[0-9-]{1,10}"),
        client_type in option::of(any::<String>()),
        model_id in option::of("dtmi:[a-z:]{1,20};[0-9]"),
    ) {
        let name = Username { identity, api_version, client_type, model_id };
        prop_assert_eq!(Username::parse(&name.encode()), Ok(name));
    }

    #[test]
    fn parsing_never_panics(text in prop_oneof![any::<String>(), "[a-z./?&=%-]{0,60}".boxed()]) {
        let _ = Username::parse(&text);
    }
}
