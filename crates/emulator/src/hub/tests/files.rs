use iothub::ErrorCode;

use super::*;

const CONTAINER: &str = "https://localhost/uploads";

fn caller(rig: &mut Rig, id: &str) -> Caller {
    let token = key().sign(&sas::resource(&whom(id)), None, expiry());
    let proof = Proof::new(Some(&token), &Peer::ANONYMOUS);
    rig.hub
        .authorize_caller(whom(id), proof, &[], rig.now)
        .unwrap()
}

fn begin(rig: &mut Rig, name: &str) -> Result<Upload, Error> {
    let caller = caller(rig, "dev1");
    rig.hub.begin_upload(&caller, name, CONTAINER, rig.now)
}

fn end(rig: &mut Rig, id: &str, is_success: bool) -> Result<(), Error> {
    let caller = caller(rig, "dev1");
    rig.hub.end_upload(&caller, id, is_success, rig.now)
}

#[track_caller]
fn assert_code<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) {
    assert_eq!(result.unwrap_err().code, code);
}

#[test]
fn an_upload_begins_is_written_and_ends_with_a_notification() {
    let mut rig = Rig::new();
    let upload = begin(&mut rig, "a/my file.txt").unwrap();
    assert_eq!(upload.blob, "dev1/a/my file.txt");
    rig.hub
        .authorize_blob(&upload.blob, &upload.token, rig.now)
        .unwrap();
    let content = Bytes::from_static(b"hello");
    let files = rig.hub.files_mut();
    files
        .put(
            &upload.blob,
            content,
            Some("text/plain".to_owned()),
            false,
            rig.now.utc,
        )
        .unwrap();
    rig.wait(Duration::from_secs(5));
    end(&mut rig, &upload.correlation_id, true).unwrap();
    let [notification] = &rig.hub.file_notifications(1)[..] else {
        panic!("one notification")
    };
    assert_eq!(
        notification.blob_uri,
        "https://localhost/uploads/dev1/a/my file.txt"
    );
    assert_eq!((notification.bytes, notification.sequence), (5, 1));
    assert_eq!(notification.enqueued_at, rig.now.utc);
    assert_code(
        end(&mut rig, &upload.correlation_id, true),
        ErrorCode::InvalidFileUploadCorrelationId,
    );
    assert!(rig.hub.file_notifications(2).is_empty());
}

#[test]
fn an_upload_that_failed_is_told_to_nobody() {
    let mut rig = Rig::new();
    let upload = begin(&mut rig, "a").unwrap();
    end(&mut rig, &upload.correlation_id, false).unwrap();
    assert!(rig.hub.file_notifications(1).is_empty());
}

#[test]
fn ten_uploads_are_open_at_a_time() {
    let mut rig = Rig::new();
    let uploads: Vec<_> = (0..10)
        .map(|n| begin(&mut rig, &format!("f{n}")).unwrap())
        .collect();
    assert_code(
        begin(&mut rig, "f10"),
        ErrorCode::DeviceMaximumActiveFileUploadLimitExceeded,
    );
    end(&mut rig, &uploads[3].correlation_id, false).unwrap();
    begin(&mut rig, "f10").unwrap();
    assert_code(
        begin(&mut rig, "f11"),
        ErrorCode::DeviceMaximumActiveFileUploadLimitExceeded,
    );
}

#[test]
fn an_upload_ends_with_its_token() {
    let mut rig = Rig::new();
    let uploads: Vec<_> = (0..10)
        .map(|n| begin(&mut rig, &format!("f{n}")).unwrap())
        .collect();
    rig.wait(Duration::from_secs(3599));
    let may = |rig: &Rig, blob: &str| rig.hub.authorize_blob(blob, &uploads[0].token, rig.now);
    assert_eq!(may(&rig, "dev1/f0"), Ok(()));
    assert_eq!(
        may(&rig, "dev1/f1"),
        Err(FileError::Unauthenticated),
        "of another file"
    );
    rig.wait(Duration::from_secs(1));
    assert_eq!(may(&rig, "dev1/f0"), Err(FileError::Unauthenticated));
    assert_code(
        end(&mut rig, &uploads[0].correlation_id, true),
        ErrorCode::ExpiredFileUploadCorrelationId,
    );
    begin(&mut rig, "more").unwrap();
    rig.wait(Duration::from_secs(24 * 3600));
    begin(&mut rig, "more").unwrap();
    assert_code(
        end(&mut rig, &uploads[1].correlation_id, true),
        ErrorCode::InvalidFileUploadCorrelationId,
    );
}

#[test]
fn a_token_is_only_good_as_it_was_given() {
    let mut rig = Rig::new();
    let upload = begin(&mut rig, "a").unwrap();
    let token = &upload.token;
    for wrong in [
        BlobToken {
            expires_at: "2099-01-01T00:00:00Z".to_owned(),
            ..token.clone()
        },
        BlobToken {
            permissions: "rwd".to_owned(),
            ..token.clone()
        },
        BlobToken {
            signature: "AAAA".to_owned(),
            ..token.clone()
        },
        BlobToken {
            signature: "?".to_owned(),
            ..token.clone()
        },
        BlobToken {
            signature: String::new(),
            ..token.clone()
        },
    ] {
        let judged = rig.hub.authorize_blob(&upload.blob, &wrong, rig.now);
        assert_eq!(judged, Err(FileError::Unauthenticated), "{wrong:?}");
    }
    assert!(
        !format!("{token:?}").contains(&token.signature),
        "a signature is a secret"
    );
}

#[test]
fn a_blobs_name_has_rules() {
    let mut rig = Rig::new();
    // With `dev1/` before it.
    for (name, is_taken) in [
        (String::new(), false),
        ("a.".to_owned(), false),
        ("a/".to_owned(), false),
        ("a/../b".to_owned(), false),
        ("a\nb".to_owned(), false),
        ("x".repeat(1018), true),
        ("x".repeat(1019), true),
        ("x".repeat(1020), false),
        (vec!["x"; 253].join("/"), true),
        (vec!["x"; 254].join("/"), false),
    ] {
        let upload = begin(&mut rig, &name);
        assert_eq!(upload.is_ok(), is_taken, "{name:?}");
        match upload {
            Ok(upload) => end(&mut rig, &upload.correlation_id, false).unwrap(),
            Err(error) => assert_eq!(error.code, ErrorCode::InvalidStorageEndpointOrBlob),
        }
    }
}

#[test]
fn uploads_are_a_devices_own_and_go_with_it() {
    let mut rig = Rig::new();
    rig.add_device("dev2");
    let upload = begin(&mut rig, "a").unwrap();
    let other = caller(&mut rig, "dev2");
    let ended = rig
        .hub
        .end_upload(&other, &upload.correlation_id, true, rig.now);
    assert_code(ended, ErrorCode::InvalidFileUploadCorrelationId);
    rig.hub
        .delete_device(&dev1(), &IfMatch::Any, rig.now)
        .unwrap();
    rig.add_device("dev1");
    assert_code(
        end(&mut rig, &upload.correlation_id, true),
        ErrorCode::InvalidFileUploadCorrelationId,
    );
}

#[test]
fn a_module_uploads_no_files() {
    let mut rig = Rig::new();
    let spec = ModuleSpec::default();
    rig.hub
        .create_module(&dev1(), &"m".parse().unwrap(), spec, rig.now)
        .unwrap();
    let caller = caller(&mut rig, "dev1/m");
    let refused = rig.hub.begin_upload(&caller, "a", CONTAINER, rig.now);
    assert_code(refused, ErrorCode::InvalidOperation);
}

#[test]
fn a_file_is_made_of_its_blocks_in_the_order_of_the_list() {
    let mut rig = Rig::new();
    let now = rig.now.utc;
    let files = rig.hub.files_mut();
    for (id, block) in [("Yg==", "world"), ("YQ==", "hello "), ("Yg==", "you")] {
        files.put_block("f", id, block.into()).unwrap();
    }
    assert_eq!(files.read("f"), None, "not before the list");
    let list = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let unknown = files.put_block_list("f", &list(&["YQ==", "Yw=="]), None, false, now);
    assert_eq!(unknown, Err(FileError::BlockList));
    let info = files
        .put_block_list("f", &list(&["YQ==", "Yg=="]), None, true, now)
        .unwrap();
    assert_eq!(
        (info.bytes, files.read("f").unwrap().content),
        (9, "hello you".into())
    );
    let again = files.put_block_list("f", &list(&["YQ=="]), None, false, now);
    assert_eq!(again, Err(FileError::BlockList), "they are used up");
    let there = files.put("f", Bytes::new(), None, true, now);
    assert_eq!(there, Err(FileError::Exists));
    let (long, longer) = (base64(&[0; 64]), base64(&[0; 65]));
    assert_eq!(files.put_block("f", &long, Bytes::new()), Ok(()));
    for id in [longer.as_str(), "", "?"] {
        assert_eq!(
            files.put_block("f", id, Bytes::new()),
            Err(FileError::BlockId)
        );
    }
    assert!(files.remove("f") && !files.remove("f"));
}

#[test]
fn what_is_kept_is_bounded() {
    let mut rig = Rig::with(|config| (config.file_bytes, config.file_bytes_in_all) = (10, 25));
    let now = rig.now.utc;
    let files = rig.hub.files_mut();
    let bytes = |count| Bytes::from(vec![0; count]);
    for (count, expected) in [(9, true), (10, true), (11, false)] {
        assert_eq!(
            files.put("a", bytes(count), None, false, now).is_ok(),
            expected,
            "{count}"
        );
    }
    assert_eq!(files.put_block("b", "YQ==", bytes(6)), Ok(()));
    assert_eq!(
        files.put_block("b", "Yg==", bytes(5)),
        Err(FileError::TooLarge),
        "together"
    );
    assert_eq!(files.put_block("b", "Yg==", bytes(4)), Ok(()));
    let twice = vec!["YQ==".to_owned(); 2];
    assert_eq!(
        files.put_block_list("b", &twice, None, false, now),
        Err(FileError::TooLarge)
    );
    // 10 and 10 are there.
    files.put("c", bytes(5), None, false, now).unwrap();
    let names = |files: &FileStore| files.list().into_iter().map(|f| f.blob).collect::<String>();
    assert_eq!(names(files), "ac");
    files.put("d", bytes(1), None, false, now).unwrap();
    assert_eq!(
        names(files),
        "cd",
        "the one that was written longest ago is gone"
    );
    files.put("e", bytes(10), None, false, now).unwrap();
    assert_eq!(
        files.put_block_list("b", &twice[..1], None, false, now),
        Err(FileError::BlockList)
    );
}

#[test]
fn files_and_blocks_are_counted_even_if_they_are_empty() {
    let mut rig = Rig::new();
    let now = rig.now.utc;
    let files = rig.hub.files_mut();
    let id = |n: u32| base64(&n.to_be_bytes());
    for file in ["a", "b"] {
        for n in 0..50_000 {
            files.put_block(file, &id(n), Bytes::new()).unwrap();
        }
        assert_eq!(
            files.put_block(file, &id(50_000), Bytes::new()),
            Err(FileError::TooManyBlocks)
        );
        assert_eq!(files.put_block(file, &id(7), Bytes::new()), Ok(()));
    }
    let is_there = |files: &mut FileStore, file| {
        let list = [id(1)];
        files.put_block_list(file, &list, None, true, now).is_ok()
    };
    files.put_block("c", &id(1), Bytes::new()).unwrap();
    assert!(!is_there(files, "a"), "it made room for c");
    assert!(is_there(files, "b") && is_there(files, "c"));

    for n in 0..9_999 {
        files
            .put(&format!("f{n}"), Bytes::new(), None, false, now)
            .unwrap();
    }
    assert_eq!(files.list().len(), 10_000, "without b");
    files.put("f0", Bytes::new(), None, false, now).unwrap();
    assert_eq!(files.list().len(), 10_000);
    assert!(files.info("b").is_none() && files.info("c").is_some());
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}
