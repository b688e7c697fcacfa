//! A cache of texts that a thread has seen recently. A repeated text needs no new allocation.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

/// The number of cached texts, a power of two. A thread has two such caches; with the longest texts each takes 70 KiB.
const PLACES: usize = 256;
/// The longest text that is cached, in bytes.
const LONGEST: usize = 255;

/// Recent texts. Each text has one place, shared with other texts; the place keeps the most recent one.
pub(crate) struct Recent(RefCell<[Option<Arc<str>>; PLACES]>);

thread_local! {
    static WIRE: Recent = const { Recent::new() };
}

/// A text from the wire, shared with earlier occurrences. For texts that repeat: names and keys, not ids.
pub(crate) fn shared(text: &str) -> Arc<str> {
    let found: Result<Arc<str>, std::convert::Infallible> = Recent::of(&WIRE, text, |_| Ok(()));
    match found {
        Ok(text) => text,
    }
}

impl Recent {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new([const { None }; PLACES]))
    }

    /// The shared text. Calls `check` if the text is not cached.
    ///
    /// # Errors
    /// The error of `check`.
    pub(crate) fn of<E>(
        recent: &'static std::thread::LocalKey<Self>,
        text: &str,
        check: impl FnOnce(&str) -> Result<(), E>,
    ) -> Result<Arc<str>, E> {
        let place = FixedState::default().hash_one(text) as usize % PLACES;
        let known = |Self(places): &Self| places.borrow()[place].clone().filter(|known| **known == *text);
        // While its thread ends, the cache may be gone already.
        if let Ok(Some(known)) = recent.try_with(known) {
            return Ok(known);
        }
        check(text)?;
        let new = Arc::from(text);
        if text.len() <= LONGEST {
            let remembered = Arc::clone(&new);
            let before = recent.try_with(|Self(places)| places.borrow_mut()[place].replace(remembered));
            drop(before);
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_texts_are_themselves_whatever_came_before(texts in prop::collection::vec("[a-c.]{0,4}|.{0,300}", 0..600)) {
            for text in &texts {
                prop_assert_eq!(&*shared(text), text.as_str());
                prop_assert_eq!(&*shared(text), text.as_str());
            }
        }
    }

    #[test]
    fn what_comes_again_is_shared_and_checked_once_and_what_was_refused_is_not_remembered() {
        thread_local! {
            static CHECKED: Recent = const { Recent::new() };
        }
        let first = Recent::of(&CHECKED, "a.b", |_| Ok::<_, ()>(())).unwrap();
        let again = Recent::of(&CHECKED, "a.b", |_| Err(())).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(Recent::of(&CHECKED, "a..b", |_| Err("bad")), Err("bad"));
        assert_eq!(Recent::of(&CHECKED, "a..b", |_| Err("bad")), Err("bad"));
        let long = "a".repeat(LONGEST + 1);
        assert!(!Arc::ptr_eq(&shared(&long), &shared(&long)));
    }
}
