use proptest::prelude::*;
use tombolo_iothub::{ParseBagError, PropertyBag};

use crate::arbitrary;

fn encoded(bag: &PropertyBag) -> String {
    let mut text = String::new();
    bag.encode_onto(&mut text);
    text
}

#[test]
fn a_raw_character_that_closes_the_connection_is_named() {
    for (text, index, character) in [
        ("a=b:c", 0, ':'),
        ("a=1&b/c=2", 1, '/'),
        ("a=x y", 0, ' '),
        ("a=#", 0, '#'),
        ("a=1+1", 0, '+'),
    ] {
        assert_eq!(
            PropertyBag::parse(text),
            Err(ParseBagError::Raw { index, character })
        );
    }
    assert_eq!(
        PropertyBag::parse("a=%ff"),
        Err(ParseBagError::NotUtf8 { index: 0 })
    );
}

#[test]
fn a_space_is_no_plus() {
    let bag: PropertyBag = [("a b", "1+1")].into_iter().collect();
    assert_eq!(encoded(&bag), "a%20b=1%2B1");
}

#[test]
fn only_the_first_equals_sign_divides() {
    let bag = PropertyBag::parse("a=b=c&=v&d%3De=").unwrap();
    let pairs: Vec<_> = bag.iter().collect();
    assert_eq!(
        pairs,
        [("a", Some("b=c")), ("", Some("v")), ("d=e", Some(""))]
    );
}

proptest! {
    #[test]
    fn every_bag_comes_back(bag in arbitrary::bag()) {
        prop_assert_eq!(PropertyBag::parse(&encoded(&bag)), Ok(bag));
    }

    /// What stands in a topic must survive a topic: one level, no wildcard, printable.
    #[test]
    fn an_encoded_bag_is_one_plain_topic_level(bag in arbitrary::bag()) {
        let text = encoded(&bag);
        prop_assert!(text.bytes().all(|b| b.is_ascii_graphic() && !b"/+#?:\"' ".contains(&b)), "{}", text);
    }

    #[test]
    fn parsing_never_panics(text: String) {
        let _ = PropertyBag::parse(&text);
    }

    #[test]
    fn parsing_likely_text_never_panics(text in "[a%&=$.0-9A-F]{0,40}") {
        let _ = PropertyBag::parse(&text);
    }
}
