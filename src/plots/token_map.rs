//! Token map: a class's probability by site and token of one dialogue, as a heat map and as a strip of text.

use super::site_axis::axis;
use crate::analysis::token_readout::TokenReadout;
use crate::report::Chart;
use crate::report::charts::chart::{HeatChart, Scale};
use crate::report::pages::token_strip::{Strip, StripToken};

/// Tokens that the heat map shows at most: the last ones.
const SHOWN: usize = 72;

/// The heat map.
pub fn chart(readout: &TokenReadout) -> Chart {
    let skip = readout.tokens.len().saturating_sub(SHOWN);
    let cut = if skip > 0 { format!("; the first {skip} tokens are left out") } else { String::new() };
    Chart::Heat(HeatChart {
        title: format!("Readout by token and site: P({})", readout.class),
        subtitle: format!(
            "probes of {} fitted at {}, applied at every token of dialogue {} (not calibrated elsewhere){cut}",
            readout.label, readout.fitted_at, readout.id
        ),
        x_label: "token".into(),
        y_label: axis(&readout.sites).0,
        columns: readout.tokens[skip..].iter().map(|token| visible(&token.text)).collect(),
        rows: axis(&readout.sites).1,
        values: readout
            .probabilities
            .iter()
            .map(|row| row[skip..].iter().map(|&p| Some(p)).collect())
            .collect(),
        words: Vec::new(),
        label: format!("P({})", readout.class),
        range: [0.0, 1.0],
        scale: Scale::Rising,
    })
}

/// A token's text with its white space visible: a pilcrow is a new line, a dot a space, an arrow a tab. Space around a word is left out.
pub(super) fn visible(text: &str) -> String {
    let shown = |text: &str| -> String {
        text.chars()
            .map(|one| match one {
                '\n' => '¶',
                '\t' => '→',
                one if one.is_whitespace() => '·',
                one => one,
            })
            .collect()
    };
    match text.trim() {
        "" => shown(text),
        word if text.contains('\n') => {
            shown(text.trim_matches(' ')).replace('·', if word.contains(' ') { " " } else { "" })
        }
        word => word.into(),
    }
}

/// The tokens of the last site, each on the colour of its probability.
pub fn strip(readout: &TokenReadout, threshold: Option<f64>) -> Strip {
    let site = readout.sites.last().map(|site| site.to_string()).unwrap_or_default();
    let row = readout.probabilities.last();
    let tokens = readout.tokens.iter().enumerate().map(|(place, token)| StripToken {
        text: token.text.clone(),
        value: row.map(|row| row[place]),
        template: token.template,
        begins: place > 0 && readout.tokens[place - 1].turn != token.turn,
    });
    Strip {
        title: format!("Token by token: P({})", readout.class),
        lead: format!(
            "Dialogue {}, read at {site} by a probe of {} that was fitted at {}; at other tokens its probability is not \
             calibrated.",
            readout.id, readout.label, readout.fitted_at
        ),
        label: format!("P({})", readout.class),
        threshold,
        tokens: tokens.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn a_new_line_is_visible_wherever_it_stands() {
        for (text, shown) in [
            ("\n", "¶"),
            ("\n\n", "¶¶"),
            (" ", "·"),
            ("\t", "→"),
            (" word", "word"),
            (".\n", ".¶"),
            (" end.\n\n", "end.¶¶"),
            ("\r\n", "·¶"),
        ] {
            assert_eq!(visible(text), shown, "{text:?}");
        }
    }
}
