//! Tokens of a device whose key the gateway holds.

use iothub::{Identity, sas::Key};
use store::{StoreError, Verdict};
use upstream::config::{DeviceConfig, KeySource};

use crate::{
    hub::NAME,
    rig::{KEY, Rig, dev1, in_seconds, token},
};

const MODULE_KEY: &str = "bW9kdWxlLWtleS1tb2R1bGUta2V5LW1vZHVsZS1rZXk=";
const GATEWAY: &str = "gateway.example";

/// `dev1` with two keys, `dev1/m` with one, at a gateway that has a name.
async fn rig() -> Rig {
    Rig::with(|config| {
        config.gateway_names = vec!["localhost".to_owned(), GATEWAY.to_owned()];
        let other = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
        config.devices[0].secondary_key = Some(KeySource::Text(other.into()));
        config.devices.push(DeviceConfig {
            module: Some("m".parse().unwrap()),
            ..DeviceConfig::new("dev1".parse().unwrap(), KeySource::Text(MODULE_KEY.into()))
        });
    })
    .await
}

fn module() -> Identity {
    Identity::module(
        NAME.parse().unwrap(),
        "dev1".parse().unwrap(),
        "m".parse().unwrap(),
    )
}

/// Signs a resource just as it is written.
fn signed_raw(sr: &str) -> String {
    // A resource that consists of unreserved characters is written as it is, and has the same signature.
    let token = Key::from_base64(KEY)
        .unwrap()
        .sign("X", None, in_seconds(600));
    let se = token.split("se=").nth(1).unwrap().to_owned();
    let signature = hmac(sr, &se);
    format!("SharedAccessSignature sr={sr}&sig={signature}&se={se}")
}

fn hmac(sr: &str, se: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&BASE64.decode(KEY).unwrap()).unwrap();
    mac.update(format!("{sr}\n{se}").as_bytes());
    let signature = BASE64.encode(mac.finalize().into_bytes());
    signature
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D")
}

#[tokio::test]
async fn a_good_token_is_checked_without_asking_the_hub() {
    let rig = rig().await;
    for resource in [
        "hub.example/devices/dev1",
        "gateway.example/devices/dev1",
        "localhost/devices/dev1",
        "localhost:8443/devices/dev1",
        "hub.example/devices",
    ] {
        let verdict = rig.judge(&token(resource, 600)).await;
        let Verdict::Checked { expires_at } = verdict else {
            panic!("{resource}: {verdict:?}");
        };
        let left = expires_at.saturating_since(in_seconds(0)).as_secs();
        assert!((590..=600).contains(&left), "{left}");
    }
    assert!(!rig.hub.has_visitor().await);
}

#[tokio::test]
async fn every_spelling_of_the_resource_is_understood() {
    let rig = rig().await;
    for sr in [
        "hub.example/devices/dev1",
        "hub.example%2Fdevices%2Fdev1",
        "hub.example%2fdevices%2fdev1",
        "HUB.example%2Fdevices%2Fdev1",
        "hub.example%252Fdevices%252Fdev1",
        "gateway.example/devices/dev1",
    ] {
        let token = signed_raw(sr);
        let other_order = {
            let fields = token.strip_prefix("SharedAccessSignature ").unwrap();
            let mut fields: Vec<_> = fields.split('&').collect();
            fields.reverse();
            format!("SharedAccessSignature {}", fields.join("&"))
        };
        for token in [token.clone(), format!("{token}&skn="), other_order] {
            let verdict = rig.judge(&token).await;
            assert!(matches!(verdict, Verdict::Checked { .. }), "{token}");
        }
    }
}

#[tokio::test]
async fn what_is_not_good_is_refused() {
    let rig = rig().await;
    let good = token("hub.example/devices/dev1", 600);
    let by_module_key = Key::from_base64(MODULE_KEY).unwrap().sign(
        "hub.example/devices/dev1",
        None,
        in_seconds(600),
    );
    let of_policy = Key::from_base64(KEY).unwrap().sign(
        "hub.example/devices/dev1",
        Some("device"),
        in_seconds(600),
    );
    for (why, token) in [
        ("over", token("hub.example/devices/dev1", -1)),
        ("over at this second", token("hub.example/devices/dev1", 0)),
        ("another device", token("hub.example/devices/dev2", 600)),
        ("half a segment", token("hub.example/devices/dev", 600)),
        ("a longer id", token("hub.example/devices/dev10", 600)),
        (
            "only a module",
            token("hub.example/devices/dev1/modules/m", 600),
        ),
        ("another hub", token("other.example/devices/dev1", 600)),
        ("no host", token("devices/dev1", 600)),
        ("a port alone", token(":8443/devices/dev1", 600)),
        (
            "another host at a port",
            token("other.example:8443/devices/dev1", 600),
        ),
        ("another key", by_module_key),
        ("a policy", of_policy),
        ("another expiry", good.replace("se=1", "se=2")),
        ("another spelling than signed", good.replace("%2F", "/")),
        ("half a token", good[..good.len() / 2].to_owned()),
        ("no scheme", good.replace("SharedAccessSignature ", "")),
        ("nothing", String::new()),
    ] {
        let verdict = rig.judge(&token).await;
        assert_eq!(verdict, Verdict::Refused, "{why}");
    }
    assert!(!rig.hub.has_visitor().await);
}

#[tokio::test]
async fn a_module_has_its_own_key_and_its_devices() {
    let rig = rig().await;
    let sign = |key: &str, resource: &str| {
        let key = Key::from_base64(key).unwrap();
        key.sign(resource, None, in_seconds(600))
    };
    for token in [
        sign(MODULE_KEY, "hub.example/devices/dev1/modules/m"),
        sign(MODULE_KEY, "gateway.example/devices/dev1/modules/m"),
        sign(KEY, "hub.example/devices/dev1/modules/m"),
        sign(KEY, "gateway.example/devices/dev1"),
    ] {
        let verdict = rig.judge_for(&module(), &token).await;
        assert!(matches!(verdict, Verdict::Checked { .. }), "{token}");
    }
    let other = sign(KEY, "hub.example/devices/dev1/modules/n");
    assert_eq!(rig.judge_for(&module(), &other).await, Verdict::Refused);
}

#[tokio::test]
async fn whom_the_gateway_does_not_serve_is_unknown() {
    let rig = rig().await;
    let hub = || NAME.parse().unwrap();
    for identity in [
        Identity::device(hub(), "dev2".parse().unwrap()),
        Identity::module(hub(), "dev1".parse().unwrap(), "n".parse().unwrap()),
        Identity::device("other.example".parse().unwrap(), "dev1".parse().unwrap()),
    ] {
        let token = token(&iothub::sas::resource(&identity), 600);
        assert_eq!(
            rig.judge_for(&identity, &token).await,
            Verdict::UnknownDevice
        );
    }
    assert!(!rig.hub.has_visitor().await);
}

#[tokio::test]
async fn the_seat_is_empty_when_the_sessions_have_ended() {
    let mut rig = rig().await;
    let token = token("hub.example/devices/dev1", 600).into();
    let upstream = rig.upstream.take().expect("it runs");
    upstream
        .shutdown(std::time::Duration::from_secs(5))
        .await
        .unwrap();
    let judged = rig.store.judge.judge(&dev1(), &token).await;
    assert_eq!(judged, Err(StoreError::Unavailable));
}
