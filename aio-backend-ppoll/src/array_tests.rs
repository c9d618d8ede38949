//! The array's own rules, without a system call.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::*;

/// Returns the owner of a new descriptor, which counts the references to it, and a reference.
fn descriptor() -> (Rc<OwnedFd>, Watched) {
    let (reader, _) = std::io::pipe().unwrap();
    let owner = Rc::new(OwnedFd::from(reader));
    (Rc::clone(&owner), owner.into())
}

fn tokens(count: u32) -> Vec<Token> {
    (0..count).map(|i| Token::new(i, i * 7)).collect()
}

fn filled(tokens: &[Token]) -> Array {
    let mut array = Array::default();
    for &token in tokens {
        assert!(array.insert(descriptor().1, token, Interest::READ));
        array.check();
    }
    array
}

#[test]
fn r4_a_silent_registration_has_no_entry() {
    let all = tokens(3);
    let mut array = filled(&all);
    for (left, &token) in [2, 1, 0].iter().zip(&all) {
        assert!(array.set_interest(token, Interest::NONE));
        array.check();
        assert_eq!(array.polled(false).len(), *left);
    }
    assert!(array.set_interest(all[1], Interest::WRITE));
    array.check();
    assert_eq!(array.polled(false).len(), 1);
}

#[test]
fn r2_a_former_generation_has_no_say() {
    let token = Token::new(4, 2);
    let mut array = filled(&[token]);
    for stale in [Token::new(4, 1), Token::new(4, 3), Token::new(9, 2)] {
        assert!(!array.set_interest(stale, Interest::NONE));
        assert!(array.remove(stale).is_none());
    }
    assert!(
        !array.insert(descriptor().1, Token::new(4, 3), Interest::READ),
        "taken"
    );
    array.check();
    assert_eq!(array.polled(false).len(), 1);
}

#[test]
fn references_are_kept_until_remove_or_drain() {
    let mut array = Array::default();
    let (owner, share) = descriptor();
    let (drained, other) = descriptor();
    let [first, second] = [Token::new(0, 0), Token::new(1, 0)];
    array.insert(share, first, Interest::BOTH);
    array.insert(other, second, Interest::NONE);
    assert_eq!(Rc::strong_count(&owner), 2);

    drop(array.remove(first));
    assert_eq!(Rc::strong_count(&owner), 1);

    let mut seen = Vec::new();
    array.drain(&mut |_, token, interest| seen.push((token, interest)));
    assert_eq!(seen, [(second, Interest::NONE)]);
    assert_eq!(Rc::strong_count(&drained), 1);
    array.check();
}

#[test]
fn a_random_walk_keeps_slots_and_entries_in_step() {
    let seed = std::env::var("AIO_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("AIO_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);

    let mut array = Array::default();
    let mut live: Vec<Token> = Vec::new();
    for step in 0..4_000 {
        let once = if random.bool() {
            Interest::ONESHOT
        } else {
            Interest::NONE
        };
        let interest = (Interest::from_bits_truncate(random.u8(0..4)) | once).canonical();
        match random.u8(0..4) {
            0 => {
                let token = Token::new(random.u32(0..24), step);
                let free = live.iter().all(|other| other.index() != token.index());
                assert_eq!(array.insert(descriptor().1, token, interest), free);
                if free {
                    live.push(token);
                }
            }
            1 if !live.is_empty() => {
                let token = live.swap_remove(random.usize(..live.len()));
                assert!(array.remove(token).is_some());
            }
            _ => {
                if let Some(&token) = random.choice(&live) {
                    assert!(array.set_interest(token, interest));
                }
            }
        }
        array.check();
    }
}
