//! File upload, as devices and Azure's storage clients do it.

use std::time::{Duration, SystemTime};

use iothub::{Identity, Timestamp, sas};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::rig::{HUB, Rig, device_key};

/// A request of device `dev1`.
fn device(rig: &Rig, method: Method, path: &str) -> RequestBuilder {
    let identity = Identity::device(HUB.parse().unwrap(), "dev1".parse().unwrap());
    let in_an_hour = Timestamp::from(SystemTime::now()).saturating_add(Duration::from_secs(3600));
    let token = device_key().sign(&sas::resource(&identity), None, in_an_hour);
    rig.cloud
        .anonymous(method, path)
        .header("authorization", token)
}

async fn begin(rig: &Rig, name: &str) -> Value {
    let begun = device(
        rig,
        Method::POST,
        "/devices/dev1/files?api-version=2021-04-12",
    );
    let begun = begun.json(&json!({"blobName": name})).send().await.unwrap();
    assert_eq!(begun.status(), StatusCode::OK);
    begun.json().await.unwrap()
}

/// Where clients write to: they put the parts of the answer together.
fn address(begun: &Value) -> String {
    let part = |name: &str| begun[name].as_str().unwrap().to_owned();
    format!(
        "https://{}/{}/{}{}",
        part("hostName"),
        part("containerName"),
        part("blobName"),
        part("sasToken")
    )
}

fn put(rig: &Rig, url: &str) -> RequestBuilder {
    rig.cloud.client.put(url)
}

async fn notify(rig: &Rig, path: &str, body: Value) -> StatusCode {
    let path = format!("/devices/dev1/files/{path}");
    let answer = device(rig, Method::POST, &path).json(&body).send().await;
    answer.unwrap().status()
}

#[tokio::test]
async fn a_small_file_is_written_whole_and_read_back() {
    let rig = Rig::start().await.http1();
    let begun = begin(&rig, "Dir/My File.txt").await;
    assert_eq!(begun["blobName"], "dev1/Dir/My File.txt");
    let port = rig.emulator.https_address().port();
    assert_eq!(begun["hostName"], format!("localhost:{port}"));
    let url = address(&begun);
    let written = put(&rig, &url)
        .header("x-ms-blob-type", "BlockBlob")
        .header("content-type", "text/plain")
        .body("hello");
    let written = written.send().await.unwrap();
    assert_eq!(written.status(), StatusCode::CREATED);
    assert!(
        written.headers().contains_key("etag") && written.headers().contains_key("last-modified")
    );
    let read = rig.cloud.client.get(&url).send().await.unwrap();
    assert_eq!(read.headers()["content-type"], "text/plain");
    assert_eq!(read.text().await.unwrap(), "hello");
    let body = json!({"correlationId": begun["correlationId"], "isSuccess": true, "statusCode": 200, "statusDescription": "OK"});
    assert_eq!(
        notify(&rig, "notifications", body.clone()).await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        notify(&rig, "notifications", body).await,
        StatusCode::BAD_REQUEST,
        "once"
    );

    let read = rig
        .cloud
        .get("/emulator/files/dev1/Dir/My%20File.txt")
        .send()
        .await
        .unwrap();
    assert_eq!(read.text().await.unwrap(), "hello");
    let list: Value = rig
        .cloud
        .get("/emulator/files")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&list[0]["bytes"], &list[0]["contentType"]),
        (&json!(5), &json!("text/plain"))
    );
    let told = rig
        .cloud
        .get("/emulator/file-notifications")
        .send()
        .await
        .unwrap();
    let told: Value = told.json().await.unwrap();
    assert_eq!(told.as_array().unwrap().len(), 1);
    assert_eq!(
        (&told[0]["deviceId"], &told[0]["blobSizeInBytes"]),
        (&json!("dev1"), &json!(5))
    );
    let missing = rig
        .cloud
        .get("/emulator/files/dev1/other")
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_large_file_is_written_in_blocks() {
    let rig = Rig::start().await;
    let begun = begin(&rig, "big").await;
    let url = address(&begun);
    for (id, letter) in [("MDAx", "b"), ("MDAw", "a")] {
        let block =
            put(&rig, &format!("{url}&comp=block&blockid={id}")).body(letter.repeat(300_000));
        assert_eq!(block.send().await.unwrap().status(), StatusCode::CREATED);
    }
    let list = |xml: &'static str| {
        put(&rig, &format!("{url}&comp=blocklist"))
            .header("x-ms-blob-content-type", "text/plain")
            .body(xml)
            .send()
    };
    let done = list(
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><BlockList><Latest>MDAw</Latest><Latest>MDAx</Latest></BlockList>"#,
    );
    assert_eq!(done.await.unwrap().status(), StatusCode::CREATED);
    // As the Node SDK does it.
    let correlation = begun["correlationId"].as_str().unwrap();
    let body = json!({"isSuccess": true, "statusCode": 200, "statusDescription": "OK"});
    assert_eq!(
        notify(&rig, &format!("notifications/{correlation}"), body).await,
        StatusCode::NO_CONTENT
    );
    let read = rig
        .cloud
        .get("/emulator/files/dev1/big")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!((read.len(), &read[299_999..300_001]), (600_000, "ab"));
    for (xml, code) in [
        (
            "<BlockList><Latest>AAAA</Latest></BlockList>",
            "InvalidBlockList",
        ),
        (
            "<BlockList><Committed>MDAw</Committed></BlockList>",
            "InvalidBlockList",
        ),
        ("<BlockList><Latest>", "InvalidXmlDocument"),
        ("<!DOCTYPE a><BlockList></BlockList>", "InvalidXmlDocument"),
        ("<Other/>", "InvalidXmlDocument"),
        ("", "InvalidXmlDocument"),
        ("<BlockList/><BlockList/>", "InvalidXmlDocument"),
        ("nothing", "InvalidXmlDocument"),
    ] {
        let refused = list(xml).await.unwrap();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{xml}");
        assert_eq!(refused.headers()["x-ms-error-code"], code, "{xml}");
    }
}

#[tokio::test]
async fn the_storage_wants_its_token_and_knows_its_steps() {
    let rig = Rig::with(|config| config.hub.file_bytes = 1000).await;
    let begun = begin(&rig, "a").await;
    let url = address(&begun);
    let whole = |url: &str| put(&rig, url).header("x-ms-blob-type", "BlockBlob");
    let elsewhere = url.replacen("/dev1/a", "/dev1/b", 1);
    let bare = url.split('?').next().unwrap();
    for (request, status, code) in [
        (whole(&elsewhere), 403, "AuthenticationFailed"),
        (whole(bare), 403, "AuthenticationFailed"),
        (
            whole(&url.replace("sp=rw", "sp=rwd")),
            403,
            "AuthenticationFailed",
        ),
        (rig.cloud.client.get(&url), 404, "BlobNotFound"),
        (put(&rig, &url), 400, "MissingRequiredHeader"),
        (
            put(&rig, &url).header("x-ms-blob-type", "PageBlob"),
            400,
            "InvalidHeaderValue",
        ),
        (
            put(&rig, &format!("{url}&comp=metadata")),
            400,
            "InvalidQueryParameterValue",
        ),
        (
            put(&rig, &format!("{url}&comp=block&blockid=%3F")),
            400,
            "InvalidBlockId",
        ),
        (whole(&url).body(vec![0; 1001]), 413, "RequestBodyTooLarge"),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(
            (
                answer.status().as_u16(),
                answer.headers()["x-ms-error-code"].to_str().unwrap()
            ),
            (status, code)
        );
        assert!(
            answer
                .text()
                .await
                .unwrap()
                .contains(&format!("<Code>{code}</Code>"))
                || code == "BlobNotFound"
        );
    }
    assert_eq!(
        whole(&url)
            .body(vec![0; 1000])
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::CREATED
    );
    let again = whole(&url)
        .header("if-none-match", "*")
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(again.headers()["x-ms-error-code"], "BlobAlreadyExists");
}

#[tokio::test]
async fn uploads_are_refused_with_the_hubs_codes() {
    let rig = Rig::start().await;
    let files = |body: Value| {
        device(&rig, Method::POST, "/devices/dev1/files/")
            .json(&body)
            .send()
    };
    for (body, code) in [
        (json!({"blobName": ""}), "InvalidStorageEndpointOrBlob"),
        (
            json!({"blobName": "a/../b"}),
            "InvalidStorageEndpointOrBlob",
        ),
        (json!({}), "IotHubFormatError"),
    ] {
        let refused = files(body).await.unwrap();
        assert_eq!(refused.headers()["iothub-errorcode"], code);
    }
    let refused = files(json!({"blobName": "a/../b"})).await.unwrap();
    let body: Value = refused.json().await.unwrap();
    let inner: Value = serde_json::from_str(body["Message"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&inner["errorCode"], &inner["message"]),
        (
            &json!(400_020),
            &json!("Storage endpoint or blob name is invalid")
        ),
        "as the stub service of Microsoft's next .NET SDK answers"
    );
    let body = json!({"isSuccess": true});
    assert_eq!(
        notify(&rig, "notifications", body.clone()).await,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        notify(&rig, "notifications/unknown", body).await,
        StatusCode::BAD_REQUEST
    );
    for n in 0..10 {
        begin(&rig, &n.to_string()).await;
    }
    let eleventh = files(json!({"blobName": "x"})).await.unwrap();
    assert_eq!(eleventh.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        eleventh.headers()["iothub-errorcode"],
        "DeviceMaximumActiveFileUploadLimitExceeded"
    );
    let stranger = rig
        .cloud
        .anonymous(Method::POST, "/devices/dev1/files")
        .json(&json!({"blobName": "x"}));
    assert_eq!(
        stranger.send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
}
