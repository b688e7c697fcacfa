//! Suggests the known name closest to a misspelled one.

/// The most letters that may be missing, extra, wrong or swapped.
const MOST_SLIPS: usize = 2;

/// The known name closest to a wrong one, if one is close enough.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = MOST_SLIPS.min(wrong.chars().count().saturating_sub(1) / 2).max(1);
    let slips = known.into_iter().map(|name| (distance(wrong, name), name));
    slips.filter(|(slips, _)| (1..=most).contains(slips)).min().map(|(_, name)| name)
}

/// The edit distance: letters to add, remove, replace or swap with their neighbour.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len().abs_diff(right.len()) > MOST_SLIPS {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, letter) in left.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = above[column] + usize::from(letter != other);
            let mut least = replaced.min(above[column + 1] + 1).min(line[column] + 1);
            if row > 0 && column > 0 && *letter == right[column - 1] && left[row - 1] == *other {
                least = least.min(before[column - 1] + 1);
            }
            line.push(least);
        }
        before = std::mem::replace(&mut above, line);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_understood_and_another_word_is_not() {
        let known = ["broker", "broker_ca", "prefetch", "loans"];
        for (wrong, meant) in [
            ("brokr", Some("broker")),
            ("borker", Some("broker")),
            ("loan", Some("loans")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(wrong, known), meant, "{wrong}");
        }
    }
}
