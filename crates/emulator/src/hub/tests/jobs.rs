use iothub::ErrorCode;
use serde_json::json;

use super::*;

fn twin_job(id: &str, condition: &str) -> JobSpec {
    JobSpec {
        id: id.parse().unwrap(),
        work: JobWork::UpdateTwin {
            if_match: None,
            tags: Some(object(json!({"by": id}))),
            desired: Some(object(json!({"rate": 5}))),
        },
        condition: condition.to_owned(),
        start: None,
        time: None,
    }
}

fn method_job(id: &str, connect: Duration) -> JobSpec {
    let call = MethodCall {
        name: "reboot".parse().unwrap(),
        payload: Bytes::from_static(b"{\"in\":1}"),
        response_timeout: Duration::from_secs(30),
        connect_timeout: connect,
    };
    JobSpec {
        work: JobWork::CallMethod(call),
        ..twin_job(id, "*")
    }
}

fn schedule(rig: &mut Rig, spec: JobSpec) -> Value {
    rig.hub.schedule_job(spec, rig.now).unwrap()
}

fn job(rig: &Rig, id: &str) -> Value {
    rig.hub.job(&id.parse().unwrap())
}

/// `deviceId:status` of each.
fn outcomes(rig: &Rig) -> Vec<String> {
    let rows = rig
        .hub
        .query("SELECT * FROM devices.jobs", 1000, None)
        .unwrap();
    assert_eq!(rows.item_type, ItemType::DeviceJob);
    let shown = |row: &Value| {
        format!(
            "{}:{}",
            row["deviceId"].as_str().unwrap(),
            row["status"].as_str().unwrap()
        )
    };
    rows.items.iter().map(shown).collect()
}

#[test]
fn a_twin_job_changes_the_devices_that_meet_its_condition() {
    let mut rig = Rig::new();
    rig.add_device("dev2");
    rig.add_device("dev3");
    let queued = schedule(&mut rig, twin_job("j1", "deviceId IN ['dev1', 'dev3']"));
    assert_eq!(queued["status"], "queued", "live hub");
    assert_eq!(queued["type"], "scheduleUpdateTwin");
    assert_eq!(queued["maxExecutionTimeInSeconds"], 3600);
    rig.wait(Duration::from_secs(1));
    let done = job(&rig, "j1");
    assert_eq!(done["status"], "completed");
    let counts = json!({"deviceCount": 2, "failedCount": 0, "succeededCount": 2, "runningCount": 0, "pendingCount": 0});
    assert_eq!(done["deviceJobStatistics"], counts);
    assert_eq!(outcomes(&rig), ["dev1:completed", "dev3:completed"]);
    let twin = rig.hub.twin(&whom("dev3")).unwrap();
    assert_eq!(
        (&twin["tags"]["by"], &twin["properties"]["desired"]["rate"]),
        (&json!("j1"), &json!(5))
    );
    assert_eq!(rig.hub.twin(&whom("dev2")).unwrap()["tags"], json!({}));
    let row = "SELECT jobId, jobType FROM devices.jobs WHERE devices.jobs.deviceId = 'dev1' AND status = 'completed'";
    let row = rig.hub.query(row, 10, None).unwrap();
    assert_eq!(
        row.items,
        [json!({"jobId": "j1", "jobType": "scheduleUpdateTwin"})]
    );
}

#[test]
fn a_job_waits_for_its_start_time_and_looks_for_devices_then() {
    let mut rig = Rig::new();
    let start = rig
        .now
        .utc
        .saturating_add(Duration::from_secs(3 * 24 * 3600));
    let later = JobSpec {
        start: Some(start),
        ..twin_job("later", "*")
    };
    assert_eq!(schedule(&mut rig, later)["status"], "scheduled");
    rig.wait(Duration::from_secs(3 * 24 * 3600 - 1));
    assert_eq!(job(&rig, "later")["status"], "scheduled");
    rig.add_device("new");
    rig.wait(Duration::from_secs(2));
    assert_eq!(job(&rig, "later")["status"], "completed");
    assert_eq!(outcomes(&rig), ["dev1:completed", "new:completed"]);
}

#[test]
fn a_method_job_shows_each_devices_answer() {
    let mut rig = Rig::new();
    rig.add_device("away");
    let id = rig.subscribed(&[(METHODS, 0)]);
    schedule(&mut rig, method_job("m", Duration::ZERO));
    rig.wait(Duration::from_secs(1));
    let got = rig.got(id);
    assert_eq!(
        got[0].message().topic,
        "$iothub/methods/POST/reboot/?$rid=1"
    );
    assert_eq!(got[0].message().payload, "{\"in\":1}");
    assert_eq!(job(&rig, "m")["status"], "running");
    assert_eq!(outcomes(&rig), ["away:failed", "dev1:running"]);
    rig.send(
        id,
        &publish("$iothub/methods/res/200/?$rid=1", b"{\"ok\":true}", None),
    );
    assert!(rig.done().is_empty(), "it is nobody's call but the job's");
    assert_eq!(job(&rig, "m")["status"], "completed");
    let rows = rig
        .hub
        .query("SELECT * FROM devices.jobs", 10, None)
        .unwrap()
        .items;
    assert_eq!(rows[0]["error"]["code"], "404103");
    let response = json!({"status": 200, "payload": {"ok": true}});
    assert_eq!(rows[1]["outcome"]["deviceMethodResponse"], response);
}

#[test]
fn a_job_ends_when_its_time_is_over() {
    let mut rig = Rig::new();
    let spec = JobSpec {
        time: Some(Duration::from_secs(60)),
        ..method_job("m", Duration::from_secs(300))
    };
    schedule(&mut rig, spec);
    rig.wait(Duration::from_secs(59));
    assert_eq!(job(&rig, "m")["status"], "running");
    rig.wait(Duration::from_secs(2));
    assert_eq!(job(&rig, "m")["status"], "completed");
    assert_eq!(outcomes(&rig), ["dev1:failed"]);
    rig.wait(Duration::from_secs(600));
    assert!(rig.done().is_empty(), "the call that went on is nobody's");
}

#[test]
fn a_job_is_cancelled_before_and_while_it_runs() {
    let mut rig = Rig::new();
    let start = rig.now.utc.saturating_add(Duration::from_secs(60));
    let later = JobSpec {
        start: Some(start),
        ..twin_job("later", "*")
    };
    schedule(&mut rig, later);
    schedule(&mut rig, method_job("now", Duration::from_secs(300)));
    rig.wait(Duration::from_secs(1));
    for id in ["later", "now"] {
        let id: JobId = id.parse().unwrap();
        let cancelled = rig.hub.cancel_job(&id, rig.now).unwrap();
        assert_eq!(cancelled["status"], "cancelled");
        let again = rig.hub.cancel_job(&id, rig.now).unwrap_err();
        assert_eq!(again.code, ErrorCode::InvalidOperation);
    }
    rig.wait(Duration::from_secs(600));
    assert_eq!(
        outcomes(&rig),
        ["dev1:canceled"],
        "the other one never began"
    );
    let unknown = rig
        .hub
        .cancel_job(&"no".parse().unwrap(), rig.now)
        .unwrap_err();
    assert_eq!(unknown.code, ErrorCode::JobNotFound);
}

#[test]
fn many_devices_are_taken_in_steps() {
    let mut rig = Rig::new();
    for n in 0..250 {
        rig.add_device(&format!("many-{n:03}"));
    }
    schedule(&mut rig, twin_job("j", "*"));
    let mut seen = Vec::new();
    while job(&rig, "j")["status"] != "completed" {
        let at = rig.hub.poll_timeout().unwrap();
        rig.set(at.max(rig.now.at));
        rig.hub.handle_timeout(rig.now);
        seen.push(
            job(&rig, "j")["deviceJobStatistics"]["succeededCount"]
                .as_u64()
                .unwrap(),
        );
    }
    assert_eq!(seen, [100, 200, 251]);
}

#[test]
fn ten_jobs_run_at_a_time() {
    let mut rig = Rig::new();
    for n in 0..11 {
        schedule(
            &mut rig,
            method_job(&format!("j{n:02}"), Duration::from_secs(300)),
        );
    }
    rig.wait(Duration::from_millis(10));
    let running = rig.hub.jobs(None, Some("running"), 100, None).unwrap().0;
    assert_eq!(running.len(), 10);
    rig.hub
        .cancel_job(&"j00".parse().unwrap(), rig.now)
        .unwrap();
    rig.wait(Duration::from_secs(2));
    let running = rig.hub.jobs(None, Some("running"), 100, None).unwrap().0;
    assert_eq!(running.len(), 10);
}

#[test]
fn what_no_device_would_take_is_refused_at_once() {
    let mut rig = Rig::new();
    let mut slow = method_job("slow", Duration::from_secs(301));
    for (spec, is_taken) in [
        (twin_job("a", "ORDER"), false),
        (twin_job("a", ""), false),
        (
            JobSpec {
                time: Some(Duration::ZERO),
                ..twin_job("a", "*")
            },
            false,
        ),
        (
            JobSpec {
                time: Some(Duration::from_secs(30 * 24 * 3600 + 1)),
                ..twin_job("a", "*")
            },
            false,
        ),
        (
            JobSpec {
                time: Some(Duration::from_secs(30 * 24 * 3600)),
                ..twin_job("a", "*")
            },
            true,
        ),
        (
            JobSpec {
                time: Some(Duration::from_secs(1)),
                ..twin_job("b", "*")
            },
            true,
        ),
        (std::mem::replace(&mut slow, twin_job("c", "*")), false),
    ] {
        let name = format!("{spec:?}");
        assert_eq!(
            rig.hub.schedule_job(spec, rig.now).is_ok(),
            is_taken,
            "{name}"
        );
    }
    let twice = rig
        .hub
        .schedule_job(twin_job("a", "*"), rig.now)
        .unwrap_err();
    assert_eq!(twice.code, ErrorCode::JobAlreadyExists);
    let bad_twin = JobWork::UpdateTwin {
        if_match: None,
        tags: Some(object(json!({"a.b": 1}))),
        desired: None,
    };
    let spec = JobSpec {
        work: bad_twin,
        ..twin_job("d", "*")
    };
    let refused = rig.hub.schedule_job(spec, rig.now).unwrap_err();
    assert_eq!(refused.code, ErrorCode::ArgumentInvalid);
}

#[test]
fn a_job_id_has_64_characters() {
    for (length, is_valid) in [(0, false), (1, true), (63, true), (64, true), (65, false)] {
        assert_eq!(
            "x".repeat(length).parse::<JobId>().is_ok(),
            is_valid,
            "{length}"
        );
    }
    assert_eq!("a/b".parse::<JobId>(), Err(InvalidJobId));
}

#[test]
fn ended_jobs_are_kept_for_thirty_days_and_a_thousand_at_most() {
    let mut rig = Rig::new();
    schedule(&mut rig, twin_job("old", "*"));
    rig.wait(Duration::from_secs(30 * 24 * 3600 - 10));
    assert_eq!(job(&rig, "old")["status"], "completed");
    rig.wait(Duration::from_secs(20));
    assert_eq!(
        job(&rig, "old"),
        json!({"jobId": "old", "type": "unknown", "status": "unknown"})
    );
    schedule(&mut rig, twin_job("first", "*"));
    rig.wait(Duration::from_secs(1));
    let start = rig.now.utc.saturating_add(Duration::from_secs(3600));
    for n in 0..1000 {
        let spec = JobSpec {
            start: Some(start),
            ..twin_job(&format!("n{n}"), "*")
        };
        schedule(&mut rig, spec);
    }
    assert_eq!(
        job(&rig, "first")["status"],
        "unknown",
        "it had ended, and made room"
    );
    let full = rig
        .hub
        .schedule_job(twin_job("more", "*"), rig.now)
        .unwrap_err();
    assert_eq!(full.code, ErrorCode::JobQuotaExceeded);
}

#[test]
fn a_query_over_jobs_goes_on_although_the_job_that_it_was_at_is_gone() {
    let mut rig = Rig::new();
    rig.add_device("dev2");
    schedule(&mut rig, twin_job("a", "*"));
    rig.wait(Duration::from_secs(24 * 3600));
    schedule(&mut rig, twin_job("b", "*"));
    rig.wait(Duration::from_secs(1));
    let query = "SELECT jobId, deviceId FROM devices.jobs";
    let first = rig.hub.query(query, 3, None).unwrap();
    let row = |job, device| json!({"jobId": job, "deviceId": device});
    assert_eq!(
        first.items,
        [row("a", "dev1"), row("a", "dev2"), row("b", "dev1")]
    );
    let second = rig.hub.query(query, 3, first.continuation.as_deref());
    assert_eq!(second.unwrap().items, [row("b", "dev2")]);

    let first = rig.hub.query(query, 1, None).unwrap();
    rig.wait(Duration::from_secs(29 * 24 * 3600));
    assert_eq!(job(&rig, "a")["status"], "unknown");
    let second = rig.hub.query(query, 3, first.continuation.as_deref());
    assert_eq!(second.unwrap().items, [row("b", "dev1"), row("b", "dev2")]);
}

#[test]
fn jobs_are_listed_by_type_and_status_in_pages() {
    let mut rig = Rig::new();
    for id in ["a", "b", "c"] {
        schedule(&mut rig, twin_job(id, "*"));
    }
    schedule(&mut rig, method_job("m", Duration::from_secs(300)));
    rig.wait(Duration::from_secs(1));
    let (first, next) = rig
        .hub
        .jobs(Some("scheduleUpdateTwin"), Some("completed"), 2, None)
        .unwrap();
    let ids = |jobs: &[Value]| {
        jobs.iter()
            .map(|j| j["jobId"].as_str().unwrap().to_owned())
            .collect::<String>()
    };
    assert_eq!(ids(&first), "ab");
    let next = next.unwrap();
    let (second, end) = rig
        .hub
        .jobs(
            Some("scheduleUpdateTwin"),
            Some("completed"),
            2,
            Some(&next),
        )
        .unwrap();
    assert_eq!((ids(&second).as_str(), end), ("c", None));
    let other = rig.hub.jobs(None, None, 2, Some(&next)).unwrap_err();
    assert_eq!(other.code, ErrorCode::ArgumentInvalid, "another question");
    assert_eq!(ids(&rig.hub.jobs(None, None, 10, None).unwrap().0), "abcm");
}
