use std::future::poll_fn;

use super::*;

struct Device {
    tokens: Arc<Tokens>,
    identity: Identity,
    now: Instant,
    wall_now: Timestamp,
}

impl Device {
    fn new() -> Self {
        Self::at(Identity::device(
            "hub.example".parse().unwrap(),
            "dev1".parse().unwrap(),
        ))
    }

    fn module() -> Self {
        Self::at(Identity::module(
            "hub.example".parse().unwrap(),
            "dev1".parse().unwrap(),
            "m".parse().unwrap(),
        ))
    }

    fn at(identity: Identity) -> Self {
        Self {
            tokens: Tokens::new(Secret::random().unwrap()),
            identity,
            now: Instant::now(),
            wall_now: Timestamp::from_unix_seconds(1_700_000_000),
        }
    }

    fn wait(&mut self, duration: Duration) {
        self.now += duration;
        self.wall_now = self.wall_now.saturating_add(duration);
    }

    fn attend(&self) -> Attendance {
        self.tokens.attend(&self.identity, self.now)
    }

    /// Shows a token that ends so many minutes after the beginning.
    fn present(&self, text: &str, minutes: i64) -> Presented {
        let end = Timestamp::from_unix_seconds(1_700_000_000 + 60 * minutes);
        self.tokens
            .present(&self.identity, &text.into(), end, self.now)
    }

    fn ask(&self, text: &str, minutes: i64) -> Arc<Question> {
        match self.present(text, minutes) {
            Presented::New(question) => question,
            Presented::Known(_) | Presented::Asked(_) | Presented::TooMany => {
                panic!("{text} is no new question")
            }
        }
    }

    fn connect_way(&self, question: &Question) -> oneshot::Receiver<Word> {
        match self.tokens.way(question, self.now) {
            Way::Connect(word) => word,
            Way::Probe => panic!("asked by a probe"),
        }
    }

    fn is_probed(&self, question: &Question) -> bool {
        matches!(self.tokens.way(question, self.now), Way::Probe)
    }

    fn conclude(&self, question: &Question, answer: Answer) {
        self.tokens.conclude(question, answer, self.now);
    }

    /// A session that was opened with a token.
    fn up_with(&self, text: &str, minutes: i64) -> Attendance {
        let mut session = self.attend();
        let question = self.ask(text, minutes);
        let mut word = self.connect_way(&question);
        assert_eq!(self.login(&mut session), Some((text.to_owned(), false)));
        session.accepted(self.now);
        assert!(matches!(
            word.try_recv(),
            Ok(Word::Judged(Answer::Accepted))
        ));
        self.conclude(&question, Answer::Accepted);
        session
    }

    fn login(&self, session: &mut Attendance) -> Option<(String, bool)> {
        use secrecy::ExposeSecret as _;
        let (token, is_proved) = session.login(Purpose::Open, self.wall_now)?;
        Some((token.text.expose_secret().to_owned(), is_proved))
    }

    fn renewal(&self, session: &mut Attendance) -> Option<String> {
        use secrecy::ExposeSecret as _;
        let (token, _) = session.login(Purpose::Renew, self.wall_now)?;
        Some(token.text.expose_secret().to_owned())
    }

    fn is_known(&self, text: &str, minutes: i64, answer: Answer) -> bool {
        matches!(self.present(text, minutes), Presented::Known(known) if known == answer)
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_first_token_is_judged_by_connect_and_the_next_beside_it() {
    let device = Device::new();
    let session = device.up_with("first", 60);
    assert!(session.is_proved());
    let second = device.ask("second", 70);
    assert!(device.is_probed(&second));
    assert!(device.is_known("first", 60, Answer::Accepted));
}

#[test]
fn questions_about_one_token_are_one_question() {
    let device = Device::new();
    let question = device.ask("first", 60);
    let Presented::Asked(same) = device.present("first", 60) else {
        panic!("asked twice");
    };
    assert!(Arc::ptr_eq(&question, &same));
    let other = Device {
        tokens: Arc::clone(&device.tokens),
        ..Device::module()
    };
    other.ask("first", 60);
}

#[test]
fn one_device_and_all_devices_may_ask_about_so_many_at_once() {
    let device = Device::new();
    let questions: Vec<_> = (0..MOST_OF_ONE)
        .map(|n| device.ask(&n.to_string(), 60))
        .collect();
    assert!(matches!(device.present("x", 60), Presented::TooMany));
    device.conclude(&questions[0], Answer::Undecided);
    device.ask("x", 60);

    let crowd: Vec<_> = (0..MOST_QUESTIONS)
        .map(|n| Device {
            tokens: Arc::clone(&device.tokens),
            ..Device::at(Identity::device(
                "hub.example".parse().unwrap(),
                format!("crowd-{n}").parse().unwrap(),
            ))
        })
        .collect();
    let asked = crowd.iter().filter(|device| {
        let presented = device.present("x", 60);
        matches!(presented, Presented::New(_))
    });
    assert_eq!(asked.count(), MOST_QUESTIONS - MOST_OF_ONE);
}

#[test]
fn of_several_first_tokens_the_refused_make_way_and_the_others_are_asked_about() {
    let device = Device::new();
    let mut session = device.attend();
    let questions = ["wrong", "right", "late"].map(|text| device.ask(text, 60));
    let mut words = questions
        .each_ref()
        .map(|question| device.connect_way(question));

    assert_eq!(
        device.login(&mut session),
        Some(("wrong".to_owned(), false))
    );
    session.refused(device.now);
    assert!(matches!(
        words[0].try_recv(),
        Ok(Word::Judged(Answer::Refused))
    ));
    assert!(!session.is_proved());

    assert_eq!(
        device.login(&mut session),
        Some(("right".to_owned(), false))
    );
    session.accepted(device.now);
    assert!(matches!(
        words[1].try_recv(),
        Ok(Word::Judged(Answer::Accepted))
    ));
    assert!(matches!(words[2].try_recv(), Ok(Word::Overtaken)));
}

#[test]
fn a_token_that_nobody_waits_for_is_not_tried() {
    let device = Device::new();
    let mut session = device.attend();
    let questions = ["given up", "waited for"].map(|text| device.ask(text, 60));
    drop(device.connect_way(&questions[0]));
    let _word = device.connect_way(&questions[1]);
    assert_eq!(
        device.login(&mut session),
        Some(("waited for".to_owned(), false))
    );
}

#[test]
fn a_hub_that_is_away_decides_nothing() {
    let device = Device::new();
    let mut session = device.attend();
    let question = device.ask("first", 60);
    let mut word = device.connect_way(&question);
    device.login(&mut session);
    session.failed();
    assert!(matches!(
        word.try_recv(),
        Ok(Word::Judged(Answer::Undecided))
    ));
    device.conclude(&question, Answer::Undecided);
    assert_eq!(device.login(&mut session), None);
    device.ask("first", 60);
}

#[test]
fn an_unproved_token_never_takes_the_place_of_a_good_one() {
    for device in [Device::new(), Device::module()] {
        let mut session = device.up_with("good", 60);
        assert!(device.is_probed(&device.ask("early", 600)));
        session.lost(device.now);
        let stranger = device.ask("stranger", 600);
        assert!(device.is_probed(&stranger));
        assert_eq!(device.login(&mut session), Some(("good".to_owned(), true)));
    }
}

#[test]
fn the_session_moves_to_the_token_that_ends_last_and_to_no_older_one() {
    let device = Device::new();
    let mut session = device.up_with("own", 60);
    assert_eq!(device.renewal(&mut session), None);
    for (text, minutes) in [("older", 50), ("newer", 120), ("new", 90)] {
        device.conclude(&device.ask(text, minutes), Answer::Accepted);
    }
    device.conclude(&device.ask("refused", 600), Answer::Refused);
    assert_eq!(device.renewal(&mut session), Some("newer".to_owned()));
    session.accepted(device.now);
    assert_eq!(device.renewal(&mut session), None);
    assert_eq!(device.login(&mut session), Some(("newer".to_owned(), true)));
}

#[test]
fn what_the_hub_said_is_remembered_for_a_time() {
    let mut device = Device::new();
    let session = device.up_with("own", 600);
    device.conclude(&device.ask("other", 600), Answer::Accepted);
    device.conclude(&device.ask("wrong", 600), Answer::Refused);
    assert!(device.is_known("wrong", 600, Answer::Refused));
    device.wait(MINUTE);
    let wrong = device.ask("wrong", 600);
    device.conclude(&wrong, Answer::Undecided);

    device.wait(13 * MINUTE);
    assert!(device.is_known("other", 600, Answer::Accepted));
    device.wait(MINUTE);
    device.ask("other", 600);
    assert!(
        device.is_known("own", 600, Answer::Accepted),
        "the session stands for it"
    );

    session.lost(device.now);
    device.wait(14 * MINUTE);
    assert!(device.is_known("own", 600, Answer::Accepted));
    device.wait(MINUTE);
    device.ask("own", 600);
}

#[test]
fn a_refusal_ends_all_trust_in_a_token() {
    let device = Device::new();
    let mut session = device.up_with("own", 60);
    device.conclude(&device.ask("other", 120), Answer::Accepted);
    session.lost(device.now);
    assert_eq!(device.login(&mut session), Some(("other".to_owned(), true)));
    session.refused(device.now);
    assert!(device.is_known("other", 120, Answer::Refused));
    assert_eq!(device.login(&mut session), Some(("own".to_owned(), true)));
    session.refused(device.now);
    assert_eq!(device.login(&mut session), None);
    assert!(!session.is_proved());
}

#[test]
fn a_token_that_is_over_is_not_used() {
    let mut device = Device::new();
    let mut session = device.up_with("own", 60);
    device.wait(60 * MINUTE);
    assert_eq!(device.login(&mut session), None);
}

#[test]
fn a_shelf_is_cleared_when_its_session_has_ended_and_trust_alone_fills_it_again() {
    let mut device = Device::new();
    drop(device.up_with("own", 600));
    device.wait(MINUTE - Duration::from_millis(1));
    device.tokens.tidy(device.now);
    assert_eq!(
        device.login(&mut device.attend()),
        Some(("own".to_owned(), true))
    );
    device.wait(MINUTE);
    device.tokens.tidy(device.now);
    assert_eq!(device.tokens.state.lock().shelves.len(), 0);

    assert_eq!(device.login(&mut device.attend()), None);
    assert!(device.is_known("own", 600, Answer::Accepted));
    assert_eq!(
        device.login(&mut device.attend()),
        Some(("own".to_owned(), true))
    );
}

#[tokio::test]
async fn a_session_hears_of_tokens_that_it_could_try() {
    let device = Device::new();
    let mut session = device.attend();
    let first = device.ask("first", 60);
    let _word = device.connect_way(&first);
    poll_fn(|cx| session.poll_fresh(cx)).await;
    device.login(&mut session);
    session.accepted(device.now);
    device.conclude(&first, Answer::Accepted);
    device.conclude(&device.ask("second", 120), Answer::Accepted);
    poll_fn(|cx| session.poll_fresh(cx)).await;
    device.renewal(&mut session);
    session.refused(device.now);
    // The first one is still there.
    poll_fn(|cx| session.poll_fresh(cx)).await;
}
