//! Lists, deletes and edits dead letters.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::broker::{Queue, Topology};
use crate::operate::dead_letters::error::DeadError;
use crate::operate::dead_letters::filter::DeadFilter;
use crate::operate::dead_letters::letter::DeadLetter;
use crate::operate::dead_letters::queues::DeadLetters;
use crate::operate::dead_letters::walk::{LETTER_TIMEOUT, Walk};

/// The most bytes of letters in one list.
const MOST_LISTED_BYTES: usize = 256 * 1024 * 1024;
/// The most addresses in an error.
const MOST_NAMED: u64 = 10;

impl DeadLetters {
    /// Passes the selected letters to `take` one by one, queue by queue, oldest first, until it breaks. Returns how
    /// many it passed. The letters stay in their queues, and reading them does not exhaust the broker's delivery limit.
    /// Of each letter only a receipt and a hash stay in memory.
    ///
    /// # Errors
    /// When the broker cannot be reached, or not every letter could be read.
    pub async fn each(
        &self,
        filter: &DeadFilter,
        mut take: impl FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<u64, DeadError> {
        let mut done = 0;
        for queue in self.queues_for(filter).await? {
            let mut walk = Walk::begin(self, &queue).await?;
            let stopped = self.each_in(&mut walk, filter, &mut take, &mut done).await;
            if let Ok(ControlFlow::Break(())) = stopped {
                walk.stop().await?;
                break;
            }
            walk.end(stopped.map(drop), done).await?;
        }
        Ok(done)
    }

    async fn each_in(
        &self,
        walk: &mut Walk<'_>,
        filter: &DeadFilter,
        take: &mut impl FnMut(DeadLetter) -> ControlFlow<()>,
        done: &mut u64,
    ) -> Result<ControlFlow<()>, DeadError> {
        while let Some((letter, receipt)) = walk.next().await? {
            walk.keep(&letter, receipt).await?;
            if filter.takes(&letter) {
                *done += 1;
                if take(letter).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            walk.tell(*done);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The selected letters, queue by queue, oldest first, up to 256 MiB. They stay in their queues.
    ///
    /// # Errors
    /// As [`DeadLetters::each`], and when they take more than 256 MiB.
    pub async fn list(&self, filter: &DeadFilter) -> Result<Vec<DeadLetter>, DeadError> {
        let (mut letters, mut bytes) = (Vec::new(), 0);
        self.each(filter, |letter| {
            bytes += letter.size();
            if bytes > MOST_LISTED_BYTES {
                return ControlFlow::Break(());
            }
            letters.push(letter);
            ControlFlow::Continue(())
        })
        .await?;
        if bytes > MOST_LISTED_BYTES {
            return Err(DeadError::TooLarge { listed: letters.len() as u64, most: MOST_LISTED_BYTES });
        }
        Ok(letters)
    }

    /// The one letter with this address or message id.
    ///
    /// # Errors
    /// When there is none, or several have this id; as [`DeadLetters::each`].
    pub async fn one(&self, id: &str) -> Result<DeadLetter, DeadError> {
        let (mut found, mut addresses, mut count) = (None, Vec::new(), 0);
        self.each(&DeadFilter::id(id), |letter| {
            count += 1;
            if count <= MOST_NAMED {
                addresses.push(letter.address().to_owned());
            }
            // An address names exactly one letter.
            let exact = letter.address() == id;
            if exact || found.is_none() {
                found = Some(letter);
            }
            if exact { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await?;
        match found {
            None => Err(self.not_found(id).await),
            Some(letter) if count == 1 || letter.address() == id => Ok(letter),
            Some(_) => {
                let more = if count > MOST_NAMED { ", …" } else { "" };
                let addresses = format!("{}{more}", addresses.join(", "));
                Err(DeadError::Ambiguous { id: id.to_owned(), letters: count, addresses })
            }
        }
    }

    /// Checks that each id in the filter belongs to a letter.
    ///
    /// # Errors
    /// When an id belongs to none; as [`DeadLetters::each`].
    pub async fn check_ids(&self, filter: &DeadFilter) -> Result<(), DeadError> {
        let mut missing: BTreeSet<&String> = filter.ids.iter().collect();
        if !missing.is_empty() {
            self.each(filter, |letter| {
                missing.retain(|id| !letter.is(id));
                ControlFlow::Continue(())
            })
            .await?;
        }
        match missing.first() {
            None => Ok(()),
            Some(id) => Err(self.not_found(id).await),
        }
    }

    /// The error for a missing letter. If the id is a service's name, it asks whether the service was meant.
    pub(super) async fn not_found(&self, id: &str) -> DeadError {
        let dead = BTreeSet::from([self.names().dead_queue(&self.names().queue(id, None))]);
        let is_word = postrider_grammar::check_word("service", id).is_ok();
        let id = id.to_owned();
        match self.standing(dead).await {
            Ok(standing) if is_word && !standing.is_empty() => DeadError::IsService { id },
            _ => DeadError::NotFound { id },
        }
    }

    /// Removes the selected letters and returns how many.
    ///
    /// # Errors
    /// When the broker cannot be reached, or not every letter could be read. Letters removed before the error stay
    /// removed.
    pub async fn delete(&self, filter: &DeadFilter) -> Result<u64, DeadError> {
        let mut deleted = 0;
        for queue in self.queues_for(filter).await? {
            let mut walk = Walk::begin(self, &queue).await?;
            let result = self.delete_in(&mut walk, filter, &mut deleted).await;
            walk.end(result, deleted).await?;
        }
        Ok(deleted)
    }

    async fn delete_in(&self, walk: &mut Walk<'_>, filter: &DeadFilter, deleted: &mut u64) -> Result<(), DeadError> {
        while let Some((letter, receipt)) = walk.next().await? {
            if filter.takes(&letter) {
                walk.done(&letter, receipt);
                *deleted += 1;
                walk.close_empty().await;
            } else {
                walk.keep(&letter, receipt).await?;
            }
            walk.tell(*deleted);
        }
        Ok(())
    }

    /// Replaces the payload of the letter with this address or message id. The new payload is in the encoding of the
    /// letter's media type. The result is a new letter; returns its address. The original is kept in `….dead.kept`.
    ///
    /// # Errors
    /// When there is no such letter, several have this id, or it could not be written. The original then stays.
    pub async fn replace(&self, id: &str, payload: Bytes) -> Result<String, DeadError> {
        let found = self.one(id).await?;
        let mut walk = Walk::begin(self, &found.queue).await?;
        let replaced = self.replace_in(&mut walk, &found, payload).await;
        if let Ok(Some(address)) = replaced {
            walk.stop().await?;
            return Ok(address);
        }
        walk.end(replaced, 0).await?;
        Err(DeadError::NotFound { id: id.to_owned() })
    }

    async fn replace_in(
        &self,
        walk: &mut Walk<'_>,
        found: &DeadLetter,
        payload: Bytes,
    ) -> Result<Option<String>, DeadError> {
        while let Some((letter, receipt)) = walk.next().await? {
            if letter.address() == found.address() {
                let edited = letter.edited(payload);
                let written = self.write_edited(&letter, &edited).await;
                if written.is_err() {
                    walk.keep(&letter, receipt).await?;
                } else {
                    walk.done(&letter, receipt);
                }
                return written.map(|()| Some(edited.address().to_owned()));
            }
            walk.keep(&letter, receipt).await?;
        }
        Ok(None)
    }

    async fn write_edited(&self, letter: &DeadLetter, edited: &DeadLetter) -> Result<(), DeadError> {
        let kept = Queue::replicated(format!("{}.kept", letter.queue));
        self.bus.broker.declare(&Topology::of_queues([kept.clone()])).await?;
        self.forward(letter, letter.rewritten(&kept.name)).await?;
        self.forward(letter, edited.rewritten(&letter.queue)).await
    }

    /// The first letter of a queue, if there is one. It stays there.
    pub(in crate::operate) async fn first(&self, queue: &str) -> Result<Option<DeadLetter>, DeadError> {
        let mut walk = Walk::begin(self, queue).await?;
        walk.slow(1);
        let first = walk.pull(LETTER_TIMEOUT).await.map(|first| {
            first.map(|(letter, receipt)| {
                walk.put_aside(receipt);
                letter
            })
        });
        walk.stop().await?;
        first
    }
}
