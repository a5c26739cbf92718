use super::*;
use proptest::prelude::*;

fn key(byte: u8) -> BudgetKey {
    BudgetKey::new(&[byte; BudgetKey::BYTES]).unwrap()
}

fn message(reports: &[u8]) -> BudgetMessage {
    BudgetMessage {
        instance: 0x08f6_21cf_6cfe_cde1,
        epoch: 3,
        sequence: 7,
        lag_ms: 4,
        hot_clients: 2,
        cut_off: false,
        leaving: false,
        address: "[2001:db8::1]:8080".into(),
        heard: Vec::new(),
        reports: reports.into(),
    }
}

/// The text of a message whose bytes were changed and signed again.
fn signed_anew(message: &BudgetMessage, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = STANDARD_NO_PAD.decode(message.to_text(&key(1))).unwrap();
    bytes.truncate(bytes.len() - SIGNATURE_BYTES);
    change(&mut bytes);
    let signature = key(1).over(&bytes).finalize().into_bytes();
    bytes.extend(signature);
    STANDARD_NO_PAD.encode(bytes)
}

#[test]
fn a_full_message_fits_a_notification_and_what_is_beyond_is_left_out() {
    let full = BudgetMessage { address: "x".repeat(MAX_ADDRESS), ..message(&[7; MAX_REPORT_BYTES]) };
    let text = full.to_text(&key(1));
    // 5,999 bytes are 7,999 of Base64; 38 are in front of the address, 64 its, and 32 the signature's.
    assert_eq!((MAX_REPORT_BYTES, text.len()), (5_865, 7_999));
    // 125 reports of 46 bytes.
    assert!(MAX_REPORT_BYTES >= 125 * 46 && text.len() <= MAX_TEXT, "{MAX_REPORT_BYTES} in {}", text.len());
    assert_eq!(BudgetMessage::from_text(&text, &key(1)).as_ref(), Ok(&full));
    let longer = BudgetMessage { address: "x".repeat(MAX_ADDRESS + 1), ..full.clone() };
    assert_eq!(longer.to_text(&key(1)), text);
    let over = BudgetMessage { reports: vec![7; MAX_REPORT_BYTES + 1], ..full };
    let read = BudgetMessage::from_text(&over.to_text(&key(1)), &key(1));
    assert_eq!(read.map(|message| message.reports.len()), Ok(0));
}

#[test]
fn what_was_not_signed_with_the_key_or_was_changed_is_no_message() {
    let text = message(b"reports").to_text(&key(1));
    let read = |text: &str| BudgetMessage::from_text(text, &key(1)).map(drop);
    assert_eq!(read(&text), Ok(()));
    assert_eq!(BudgetMessage::from_text(&text, &key(2)), Err(MessageFault::Signature));
    assert_eq!(read(""), Err(MessageFault::Length));
    assert_eq!(read("no Base64!"), Err(MessageFault::Text));
    assert_eq!(read(&"A".repeat(8_000)), Err(MessageFault::Text));
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = STANDARD_NO_PAD.decode(&text).unwrap();
        change(&mut bytes);
        read(&STANDARD_NO_PAD.encode(bytes))
    };
    assert_eq!(with(&|bytes| bytes.truncate(bytes.len() - 1)), Err(MessageFault::Length));
    assert_eq!(with(&|bytes| bytes.truncate(20)), Err(MessageFault::Length));
    assert_eq!(with(&|bytes| bytes.push(0)), Err(MessageFault::Length));
    let changed = |at: usize, byte: u8| with(&|bytes| bytes[at] = byte);
    assert_eq!(changed(0, 1), Err(MessageFault::Version));
    assert_eq!(changed(1, 9), Err(MessageFault::Length));
    assert_eq!(changed(20, 9), Err(MessageFault::Signature));
}

/// The key is right, but the content is not: another program or a later version has the key.
#[test]
fn signed_nonsense_is_no_message() {
    let whole = message(b"reports");
    let read = |text: String| BudgetMessage::from_text(&text, &key(1)).map(drop);
    let at_flags = HEAD_BYTES - 3;
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let rows: [(&str, Change<'_>); 4] = [
        ("an unknown flag", &|bytes| bytes[at_flags] = 4),
        ("an address that is longer than the message", &|bytes| bytes[at_flags + 1] = 255),
        ("more instances than it has room for", &|bytes| bytes[at_flags + 2] = 3),
        ("a control character in the address", &|bytes| bytes[HEAD_BYTES] = b'\n'),
    ];
    for (what, change) in rows {
        assert_eq!(read(signed_anew(&whole, change)), Err(MessageFault::Content), "{what}");
    }
    assert_eq!(read(signed_anew(&whole, |_| ())), Ok(()));
    // As many bytes of an address, or instances heard, as there may be, and one more.
    let lengths = [
        (64, 0, Ok(())),
        (0, 64, Ok(())),
        (65, 0, Err(MessageFault::Content)),
        (0, 65, Err(MessageFault::Content)),
    ];
    for (address, heard, expected) in lengths {
        let empty = BudgetMessage { address: String::new(), ..message(&[]) };
        let text = signed_anew(&empty, |bytes| {
            (bytes[at_flags + 1], bytes[at_flags + 2]) = (address, heard);
            bytes.extend(vec![b'x'; usize::from(address) + 8 * usize::from(heard)]);
            let length = (bytes.len() as u16).to_be_bytes();
            bytes[1..3].copy_from_slice(&length);
        });
        assert_eq!(read(text), expected, "{address} {heard}");
    }
}

#[test]
fn each_fault_says_something_else() {
    use MessageFault::{Content, Length, Signature, Text, Version};
    let said: std::collections::HashSet<String> =
        [Text, Version, Length, Signature, Content].iter().map(ToString::to_string).collect();
    assert!(said.len() == 5 && said.iter().all(|said| !said.is_empty()), "{said:?}");
}

#[test]
fn a_message_comes_after_those_of_an_earlier_epoch_or_a_smaller_number() {
    let message = message(&[]);
    for (epoch, sequence, after) in
        [(2, 100, true), (3, 6, true), (3, 7, false), (3, 8, false), (4, 0, false)]
    {
        assert_eq!(message.is_after(epoch, sequence), after, "{epoch} {sequence}");
    }
}

#[test]
fn the_key_shows_nowhere() {
    assert_eq!(format!("{:?}", key(1)), "[secret]");
    assert!(BudgetKey::new(&[0; 31]).is_none());
}

fn any_message() -> impl Strategy<Value = BudgetMessage> {
    let flags = (any::<bool>(), any::<bool>());
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>());
    let reports = prop::collection::vec(any::<u8>(), 0..=MAX_REPORT_BYTES);
    (numbers, flags, "[!-~]{0,64}", reports).prop_map(
        |((instance, epoch, sequence, lag_ms, hot_clients), (cut_off, leaving), address, reports)| {
            BudgetMessage {
                instance,
                epoch,
                sequence,
                lag_ms,
                hot_clients,
                cut_off,
                leaving,
                address,
                heard: if reports.is_empty() { vec![instance, epoch] } else { Vec::new() },
                reports,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in any_message()) {
        let text = message.to_text(&key(1));
        prop_assert!(text.len() <= MAX_TEXT && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\''));
        prop_assert_eq!(BudgetMessage::from_text(&text, &key(1)), Ok(message));
    }

    #[test]
    fn no_text_makes_reading_panic(text in ".{0,200}") {
        prop_assert!(BudgetMessage::from_text(&text, &key(1)).is_err());
    }

    #[test]
    fn no_signed_bytes_make_reading_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 3..300), names_its_length in any::<bool>()
    ) {
        if names_its_length {
            bytes[0] = VERSION;
            let length = (bytes.len() as u16).to_be_bytes();
            bytes[1..3].copy_from_slice(&length);
        }
        let signature = key(1).over(&bytes).finalize().into_bytes();
        bytes.extend(signature);
        let read = BudgetMessage::from_text(&STANDARD_NO_PAD.encode(&bytes), &key(1));
        if let Ok(message) = read {
            prop_assert_eq!(STANDARD_NO_PAD.decode(message.to_text(&key(1))), Ok(bytes));
        }
    }

    #[test]
    fn no_change_of_a_bit_passes(message in any_message(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = STANDARD_NO_PAD.decode(message.to_text(&key(1))).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(BudgetMessage::from_text(&STANDARD_NO_PAD.encode(&bytes), &key(1)).is_err());
    }
}
