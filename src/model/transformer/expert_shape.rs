//! The shape of a mixture of experts: how many, how a token's are chosen, and how a checkpoint stores them.

/// A mixture of experts (Shazeer et al., arXiv 1701.06538).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// Number of experts.
    pub count: usize,
    /// Experts per token.
    pub chosen: usize,
    /// Width of an expert's hidden layer.
    pub hidden: usize,
    /// Whether the weights of a token's experts are scaled to sum to 1.
    pub normalised: bool,
    /// The way from the router's scores to a token's experts.
    pub router: Router,
    /// Factor of the weights of a token's experts.
    pub scale: f64,
    /// An expert that every token uses beside its own.
    pub shared: Option<SharedExpert>,
    /// Layout of the experts' matrices in the checkpoint.
    pub layout: ExpertLayout,
    /// Limits of gate and up, where the gated unit is clamped (gpt-oss).
    pub clamp: Option<Clamp>,
    /// Whether the router and the experts' projections have biases (gpt-oss).
    pub bias: bool,
    /// Whether they stand beside the block's MLP, each behind norms of its own, rather than in its place. Their router then norms the
    /// stream itself, and a factor per expert scales what it gives (Gemma 4).
    pub beside: bool,
}

impl Experts {
    /// Softmax routing without anything further (Mixtral, Qwen3).
    pub const fn plain(count: usize, chosen: usize, hidden: usize, normalised: bool) -> Experts {
        Experts {
            count,
            chosen,
            hidden,
            normalised,
            router: Router::Softmax,
            scale: 1.0,
            shared: None,
            layout: ExpertLayout::Separate,
            clamp: None,
            bias: false,
            beside: false,
        }
    }
}

/// The way from the router's scores to a token's experts and their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Router {
    /// Softmax over all experts, then the largest.
    Softmax,
    /// Sigmoid of each score; the choice is made with a correction per expert, among the experts of the best groups
    /// (DeepSeek-V3, arXiv 2412.19437).
    Sigmoid {
        /// Number of groups of experts.
        groups: usize,
        /// Groups per token.
        chosen_groups: usize,
    },
    /// Softmax over all experts, then the largest among those of the groups with the largest (DeepSeek-V2).
    GroupLimited {
        /// Number of groups of experts.
        groups: usize,
        /// Groups per token.
        chosen_groups: usize,
    },
    /// Sigmoid of each score, then the largest: it scales what an expert reads rather than what it gives (Llama 4).
    ScaledInput,
    /// SparseMixer (Liu et al., arXiv 2409.12136): two experts in turn, each weighted among those whose score is within the
    /// jitter of its own.
    SparseMixer {
        /// Relative distance of scores that compete.
        jitter: f64,
    },
}

/// An expert that every token uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedExpert {
    /// Width of its hidden layer.
    pub hidden: usize,
    /// Whether the sigmoid of a learned projection of the token scales its output (Qwen2-MoE).
    pub gated: bool,
}

/// Layout of the experts' matrices in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertLayout {
    /// One tensor per expert and matrix.
    Separate,
    /// All experts in one tensor: gate and up `[experts, 2 · hidden, width]`, down `[experts, width, hidden]` (Granite MoE).
    Stacked,
    /// As stacked, transposed, with gate and up in turn (gpt-oss).
    Transposed,
    /// As stacked, transposed: gate and up `[experts, width, 2 · hidden]`, down `[experts, hidden, width]` (Llama 4).
    TransposedHalves,
}

/// Limits of a clamped gated unit: `min(gate, limit) · sigmoid(alpha · min(gate, limit)) · (clamp(up, ±limit) + 1)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    /// Factor in the sigmoid.
    pub alpha: f64,
    /// Limit of gate and up.
    pub limit: f64,
}
