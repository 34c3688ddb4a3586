//! Grouping by shared prefix: token sequences in, groups with the length of their common prefix out.

use crate::model::Token;

/// Rows that begin with the same tokens; their keys and values are computed once.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    /// Length of the shared prefix in tokens; 0 for the group of rows without one worth a pass of its own.
    pub shared: usize,
    /// Indices of the rows, ascending.
    pub rows: Vec<usize>,
}

/// Shortest shared prefix in tokens. A shorter one, such as the opening of a template, is computed for each row.
const SHORTEST: usize = 8;
/// Cost of a prefix's own pass, in tokens: it reads every weight for a short sequence.
const PASS_COST: usize = 64;

/// Groups rows so that the fewest tokens are left to compute. A row is its tokens and the number of leading ones that may
/// be shared. Groups with a prefix come first, then one group of all other rows.
///
/// In lexicographic order a group is a contiguous range, so that the optimal partition follows by dynamic programming over
/// the end of the last range.
pub(super) fn groups(rows: &[(&[Token], usize)]) -> Vec<Group> {
    let ids = |row: usize| rows[row].0[..rows[row].1].iter().map(|token| token.id);
    let mut sorted: Vec<usize> = (0..rows.len()).collect();
    sorted.sort_by(|&a, &b| ids(a).cmp(ids(b)).then(a.cmp(&b)));
    let common = |pair: &[usize]| ids(pair[0]).zip(ids(pair[1])).take_while(|(a, b)| a == b).count();
    let common: Vec<usize> = sorted.windows(2).map(common).collect();

    // For the first `end` rows: most tokens saved, begin of the last range, and length of its shared prefix.
    let mut best: Vec<(usize, usize, usize)> = vec![(0, 0, 0)];
    for end in 1..=rows.len() {
        let mut choice = (best[end - 1].0, end - 1, 0);
        let mut shared = usize::MAX;
        for begin in (0..end - 1).rev() {
            shared = shared.min(common[begin]);
            if shared < SHORTEST {
                break;
            }
            let saved = best[begin].0 + ((end - begin - 1) * shared).saturating_sub(PASS_COST);
            if saved > choice.0 {
                choice = (saved, begin, shared);
            }
        }
        best.push(choice);
    }
    let (mut groups, mut others) = (Vec::new(), Vec::new());
    let mut end = rows.len();
    while end > 0 {
        let (_, begin, shared) = best[end];
        let mut members = sorted[begin..end].to_vec();
        members.sort_unstable();
        match shared {
            0 => others.extend(members),
            _ => groups.push(Group { shared, rows: members }),
        }
        end = begin;
    }
    groups.reverse();
    others.sort_unstable();
    if !others.is_empty() {
        groups.push(Group { shared: 0, rows: others });
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

    /// Rows of one repeated token, each with a tail of its own.
    fn rows(heads: &[(u32, usize)]) -> Vec<Vec<u32>> {
        let row = |(number, &(head, length)): (usize, &(u32, usize))| {
            [vec![head; length], vec![1000 + number as u32, 7]].concat()
        };
        heads.iter().enumerate().map(row).collect()
    }

    #[test]
    fn each_system_prompt_is_one_group() {
        let heads: Vec<(u32, usize)> =
            (0..20).map(|row| [(1, 50), (2, 90), (row as u32 + 3, 30)][row % 3]).collect();
        let found = grouped(&rows(&heads));
        let of = |rest: usize| (0..20).filter(|row| row % 3 == rest).collect::<Vec<_>>();
        assert_eq!(found, [(50, 0), (90, 1), (0, 2)].map(|(shared, rest)| Group { shared, rows: of(rest) }));
    }

    #[test]
    fn a_longer_prefix_of_some_wins_over_a_short_one_of_all() {
        // All share ten tokens, four of them a hundred more.
        let mut all: Vec<Vec<u32>> =
            (0..4).map(|_| vec![1; 110]).chain((0..4).map(|_| vec![1; 10])).collect();
        all.iter_mut().enumerate().for_each(|(number, row)| row.extend([2000 + number as u32, 1]));
        assert_eq!(grouped(&all)[0], Group { shared: 110, rows: vec![0, 1, 2, 3] });
        // A pass costs more than two rows with a short prefix save.
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
