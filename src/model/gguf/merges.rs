//! BPE merges of a SentencePiece vocabulary, which a GGUF file doesn't hold: tokens with scores in, merges for the
//! tokenizers library out.

use std::collections::HashMap;

/// A token that takes part in merges.
pub(super) struct Piece<'a> {
    pub text: &'a str,
    pub id: usize,
    /// Higher merges first.
    pub score: f64,
}

/// All pairs of tokens whose concatenation is a token, best first: by the score of the merged token, then the longer left
/// part, then the longer right part (in characters). SentencePiece, which has no list of merges, merges in this order.
pub(super) fn merges<'a>(pieces: &[Piece<'a>]) -> Vec<(&'a str, &'a str)> {
    let ids: HashMap<&str, usize> = pieces.iter().map(|piece| (piece.text, piece.id)).collect();
    let mut found = Vec::new();
    for piece in pieces {
        let mut pairs = Vec::new();
        let count = piece.text.chars().count();
        for (left_count, (at, _)) in piece.text.char_indices().enumerate().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if let (Some(left_id), Some(right_id)) = (ids.get(left), ids.get(right)) {
                pairs.push((left_id, right_id, left_count, left, right));
            }
        }
        pairs.sort_by_key(|(left_id, right_id, ..)| (*left_id, *right_id));
        found.extend(
            pairs
                .into_iter()
                .map(|(.., left_count, left, right)| (piece.score, left_count, count, left, right)),
        );
    }
    // The sort is stable: ties keep the order of the vocabulary.
    found.sort_by(|one, two| {
        let (by_score, by_left) = (two.0.total_cmp(&one.0), two.1.cmp(&one.1));
        by_score.then(by_left).then((two.2 - two.1).cmp(&(one.2 - one.1)))
    });
    found.into_iter().map(|(.., left, right)| (left, right)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_score_merges_first_and_every_way_to_a_token_is_there() {
        let texts = ["a", "b", "c", "ab", "bc", "abc"];
        let scores = [-10.0, -10.0, -10.0, -2.0, -1.0, -3.0];
        let pieces: Vec<Piece> = texts
            .into_iter()
            .zip(scores)
            .enumerate()
            .map(|(id, (text, score))| Piece { text, id, score })
            .collect();
        assert_eq!(merges(&pieces), [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]);
    }
}
