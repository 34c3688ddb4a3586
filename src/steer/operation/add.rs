//! Add a direction, with the state's length left to change or kept.

use super::{dot, move_along};

/// `h + amount · v̂` (CAA, arXiv 2312.06681).
pub(super) fn add(h: &mut [f32], unit: &[f32], amount: f32) {
    move_along(h, unit, amount);
}

/// The same, scaled back to `‖h‖`. Where the sum is 0 it has no direction, and `h` stays.
pub(super) fn add_keeping_norm(h: &mut [f32], unit: &[f32], amount: f32) {
    let before = dot(h, h);
    // ‖h + a v̂‖² by the parts, before anything is changed.
    let after = before + 2.0 * f64::from(amount) * dot(h, unit) + f64::from(amount).powi(2) * dot(unit, unit);
    if before == 0.0 || after <= before * 1e-12 {
        return;
    }
    move_along(h, unit, amount);
    let scale = (before / dot(h, h)).sqrt() as f32;
    h.iter_mut().for_each(|h| *h *= scale);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_norm_is_kept_and_the_direction_turns(h in prop::collection::vec(-9f32..9.0, 6), amount in -20f32..20.0) {
            let unit = [0.6, 0.0, -0.8, 0.0, 0.0, 0.0];
            let before = dot(&h, &h).sqrt();
            prop_assume!(before > 0.1);
            let (mut kept, mut added) = (h.clone(), h.clone());
            add_keeping_norm(&mut kept, &unit, amount);
            add(&mut added, &unit, amount);
            prop_assert!((dot(&kept, &kept).sqrt() - before).abs() < 1e-4 * before);
            // The same way as the sum.
            let cosine = dot(&kept, &added) / (before * dot(&added, &added).sqrt());
            prop_assert!(dot(&added, &added) < 1e-6 || cosine > 1.0 - 1e-4, "{cosine}");
        }
    }

    #[test]
    fn a_sum_of_0_has_no_direction() {
        let mut h = [3.0, 4.0];
        add_keeping_norm(&mut h, &[0.6, 0.8], -5.0);
        assert_eq!(h, [3.0, 4.0]);
    }
}
