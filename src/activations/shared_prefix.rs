//! Which rows begin alike, so that what they share is read once. It knows nothing of models.

use crate::model::Token;

/// Rows that begin with the same tokens.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    /// How many tokens they share; 0 for rows that share none worth the trouble.
    pub shared: usize,
    /// Their numbers, ascending.
    pub rows: Vec<usize>,
}

/// Fewer tokens than this are read again for each row: a template's first words.
const FEWEST: usize = 8;
/// What a pass of its own costs, in tokens: it reads every weight for little.
const PASS: usize = 64;

/// Puts rows into groups so that the fewest tokens are left to read. A row is its tokens, and how many of them others
/// may read for it. Groups that share come first, then all that is left as one.
///
/// Over the sorted rows, groups are stretches, and the best cut into stretches follows from the best cuts of what
/// stands before.
pub(super) fn groups(rows: &[(&[Token], usize)]) -> Vec<Group> {
    let ids = |row: usize| rows[row].0[..rows[row].1].iter().map(|token| token.id);
    let mut sorted: Vec<usize> = (0..rows.len()).collect();
    sorted.sort_by(|&a, &b| ids(a).cmp(ids(b)).then(a.cmp(&b)));
    let alike = |pair: &[usize]| ids(pair[0]).zip(ids(pair[1])).take_while(|(a, b)| a == b).count();
    let alike: Vec<usize> = sorted.windows(2).map(alike).collect();

    // For each number of first rows: what is saved at best, and where its last stretch begins and what it shares.
    let mut best: Vec<(usize, usize, usize)> = vec![(0, 0, 0)];
    for end in 1..=rows.len() {
        let mut choice = (best[end - 1].0, end - 1, 0);
        let mut shared = usize::MAX;
        for begin in (0..end - 1).rev() {
            shared = shared.min(alike[begin]);
            if shared < FEWEST {
                break;
            }
            let saved = best[begin].0 + ((end - begin - 1) * shared).saturating_sub(PASS);
            if saved > choice.0 {
                choice = (saved, begin, shared);
            }
        }
        best.push(choice);
    }
    let (mut groups, mut left) = (Vec::new(), Vec::new());
    let mut end = rows.len();
    while end > 0 {
        let (_, begin, shared) = best[end];
        let mut members = sorted[begin..end].to_vec();
        members.sort_unstable();
        match shared {
            0 => left.extend(members),
            _ => groups.push(Group { shared, rows: members }),
        }
        end = begin;
    }
    groups.reverse();
    left.sort_unstable();
    if !left.is_empty() {
        groups.push(Group { shared: 0, rows: left });
    }
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialogue::Role;
    use crate::model::Phase;

    fn tokens(ids: &[u32]) -> Vec<Token> {
        let token = |(position, &id): (usize, &u32)| Token {
            id,
            row: 0,
            position,
            role: Role::User,
            turn: 0,
            phase: Phase::Prompt,
            index: position,
            start: false,
            generated: false,
        };
        ids.iter().enumerate().map(token).collect()
    }

    fn grouped(rows: &[Vec<u32>]) -> Vec<Group> {
        let rows: Vec<Vec<Token>> = rows.iter().map(|ids| tokens(ids)).collect();
        let rows: Vec<(&[Token], usize)> = rows.iter().map(|row| (&row[..], row.len() - 1)).collect();
        groups(&rows)
    }

    /// `head` and then a tail of its own.
    fn rows(heads: &[(u32, usize)]) -> Vec<Vec<u32>> {
        let row = |(number, &(head, length)): (usize, &(u32, usize))| {
            [vec![head; length], vec![1000 + number as u32, 7]].concat()
        };
        heads.iter().enumerate().map(row).collect()
    }

    #[test]
    fn each_system_prompt_is_read_once() {
        let heads: Vec<(u32, usize)> =
            (0..20).map(|row| [(1, 50), (2, 90), (row as u32 + 3, 30)][row % 3]).collect();
        let found = grouped(&rows(&heads));
        let of = |rest: usize| (0..20).filter(|row| row % 3 == rest).collect::<Vec<_>>();
        assert_eq!(found, [(50, 0), (90, 1), (0, 2)].map(|(shared, rest)| Group { shared, rows: of(rest) }));
    }

    #[test]
    fn a_longer_beginning_of_some_wins_over_a_short_one_of_all() {
        // All begin with ten tokens, four of them go on alike for a hundred.
        let mut all: Vec<Vec<u32>> =
            (0..4).map(|_| vec![1; 110]).chain((0..4).map(|_| vec![1; 10])).collect();
        all.iter_mut().enumerate().for_each(|(number, row)| row.extend([2000 + number as u32, 1]));
        assert_eq!(grouped(&all)[0], Group { shared: 110, rows: vec![0, 1, 2, 3] });
        // Two rows that share little are not worth a pass.
        assert_eq!(grouped(&rows(&[(1, 40), (1, 40)])), [Group { shared: 0, rows: vec![0, 1] }]);
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_group_and_begins_as_the_others(
            rows in proptest::collection::vec(proptest::collection::vec(0u32..2, 1..60), 0..30),
        ) {
            let groups = grouped(&rows);
            let mut seen: Vec<usize> = groups.iter().flat_map(|group| group.rows.clone()).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..rows.len()).collect::<Vec<_>>());
            for group in groups {
                let first = &rows[group.rows[0]];
                for row in &group.rows {
                    prop_assert!(group.shared < rows[*row].len());
                    prop_assert_eq!(&rows[*row][..group.shared], &first[..group.shared]);
                }
            }
        }
    }
}
