"""Every formula once, as a scalar function: activations, normalisation, losses, update rules, random draws.

A formula is straight-line Python over scalars with one `return` at its end. `specialise` inlines it into the
loops of `host` and `cuda`, types its float literals, and replaces the elementary functions it calls (exp,
log1p, erf, ...) by those of the target and dtype. Here they are Python's own, so that a formula can also be
called and tested directly; the random draws take NumPy's arrays too.

A formula chooses with ``a if condition else b`` and computes both sides, as a vector unit does. Comparisons
are written so that a NaN passes through.
"""

from __future__ import annotations

from math import erf, exp, expm1, inf, log, log1p, sqrt, tanh

from numpy import int32
from numpy import uint32 as u32
from numpy import uint64 as u64

# ---------------------------------------------------------------------------------------------------------
# Activations: a = f(z). A derivative's parameter says what it is computed from: z, the value before the
# activation, or a, the value after it, which spares keeping z.
# ---------------------------------------------------------------------------------------------------------


def identity(z):
    return z


def identity_derivative(a):
    return 1.0


def sigmoid(z):
    e = exp(-abs(z))
    return (1.0 if z >= 0.0 else e) / (1.0 + e)


def sigmoid_derivative(a):
    return a * (1.0 - a)


def hyperbolic_tangent(z):
    return tanh(z)


def hyperbolic_tangent_derivative(a):
    return 1.0 - a * a


def relu(z):
    return 0.0 if z < 0.0 else z


def relu_derivative(a):
    return 1.0 if a > 0.0 else 0.0


def leaky_relu(z):
    """Maas et al. 2013, with slope 0.01 below zero."""
    return 0.01 * z if z < 0.0 else z


def leaky_relu_derivative(a):
    return 1.0 if a > 0.0 else 0.01


def elu(z):
    """Clevert et al. 2015 (arXiv:1511.07289), with alpha = 1."""
    below = expm1(0.0 if z > 0.0 else z)
    return below if z < 0.0 else z


def elu_derivative(a):
    return 1.0 if a > 0.0 else a + 1.0


def gelu(z):
    """Hendrycks and Gimpel 2016 (arXiv:1606.08415), the exact form: z Φ(z)."""
    return 0.5 * z * (1.0 + erf(z * 0.7071067811865476))


def gelu_derivative(z):
    density = 0.3989422804014327 * exp(-0.5 * z * z)
    return 0.5 * (1.0 + erf(z * 0.7071067811865476)) + z * density


def silu(z):
    """z σ(z): Elfwing et al. 2017 (arXiv:1702.03118), also known as Swish."""
    return z * sigmoid(z)


def silu_derivative(z):
    s = sigmoid(z)
    return s * (1.0 + z * (1.0 - s))


def selu(z):
    """Klambauer et al. 2017 (arXiv:1706.02515): λ z, or below zero λ α (e^z − 1)."""
    below = 1.7580993408473766 * expm1(0.0 if z > 0.0 else z)
    return below if z < 0.0 else 1.0507009873554805 * z


def selu_derivative(a):
    return 1.0507009873554805 if a > 0.0 else a + 1.7580993408473766


def mish(z):
    """z tanh(log(1 + e^z)): Misra 2019 (arXiv:1908.08681), the tanh as a quotient of sums in e^−|z|."""
    e = exp(-abs(z))
    above = 1.0 + 2.0 * e if z >= 0.0 else e * (e + 2.0)
    return z * (above / (above + (2.0 * e * e if z >= 0.0 else 2.0)))


def mish_derivative(z):
    """tanh(s) + z (1 − tanh²(s)) σ(z), s = log(1 + e^z), without the cancellation in 1 − tanh²."""
    e = exp(-abs(z))
    above = 1.0 + 2.0 * e if z >= 0.0 else e * (e + 2.0)
    below = above + (2.0 * e * e if z >= 0.0 else 2.0)
    return (above + 4.0 * z * e * (e if z >= 0.0 else 1.0) * (1.0 + e) / below) / below


def softplus(z):
    positive = 0.0 if z < 0.0 else z
    return positive + log1p(exp(-abs(z)))


def softplus_derivative(z):
    return sigmoid(z)


# ---------------------------------------------------------------------------------------------------------
# Piecewise-linear numbers: Gorishniy et al. 2022 (arXiv:2203.05556), equation 1, but for the outermost bins,
# which end like all others here: beyond the training rows' numbers the share stays 0 or 1.
# ---------------------------------------------------------------------------------------------------------


def piecewise_share(x, low, inverse):
    """How far x is on its way through a bin, 0 to 1, from the bin's lower end and its inverse width."""
    share = (x - low) * inverse
    above = 0.0 if share < 0.0 else share
    return 1.0 if above > 1.0 else above


def piecewise_slope(x, low, inverse):
    share = (x - low) * inverse
    return inverse if share >= 0.0 and share < 1.0 else 0.0


# ---------------------------------------------------------------------------------------------------------
# Layer normalisation: Ba, Kiros and Hinton 2016 (arXiv:1607.06450), equations 3 and 4; of one element, given
# its row's mean and deviation.
# ---------------------------------------------------------------------------------------------------------


def centred(x, mean, remainder):
    """An element without its row's mean and the rounding error of the mean."""
    return (x - mean) - remainder


def inverse_deviation(variance, epsilon):
    return 1.0 / sqrt(variance + epsilon)


def normalised(x, mean, inverse):
    return (x - mean) * inverse


def layer_norm_derivative(slope, x_hat, inverse, mean_slope, mean_product):
    """The derivative by x, from the one by the normalised value x̂, `slope`.

    The last two are the row's means of the slopes and of slope · x̂: through the mean and the variance each
    element affects the others.
    """
    return inverse * (slope - mean_slope - x_hat * mean_product)


# ---------------------------------------------------------------------------------------------------------
# The members of an ensemble: the mean of their predictions from the logarithms, which do not underflow.
# ---------------------------------------------------------------------------------------------------------


def log_of_sum(a, b):
    """log(e^a + e^b)."""
    greatest = b if a < b else a
    return greatest + log1p(exp(-abs(a - b)))


def log_sigmoid(z):
    return -softplus(-z)


def log_sigmoid_slope(z):
    """The logarithm of σ'(z) = σ(z) (1 − σ(z))."""
    return log_sigmoid(z) + log_sigmoid(-z)


# ---------------------------------------------------------------------------------------------------------
# Periodic embeddings of a number x: cos(2πx·w + b), counted in turns, which are brought into [−½, ½] exactly.
# ---------------------------------------------------------------------------------------------------------


def turns(x, frequency, phase):
    return x * frequency + 0.15915494309189535 * phase


def quarter_sine(u):
    """sin 2πu for u in [−¼, ¼]: Taylor's series, whose next term is below float64's last digit."""
    s = u * u
    p = 0.0011309237482517954
    p = p * s - 0.012031585942120619
    p = p * s + 0.10422916220813978
    p = p * s - 0.7181223017785001
    p = p * s + 3.8199525848482803
    p = p * s - 15.094642576822984
    p = p * s + 42.058693944897634
    p = p * s - 76.70585975306136
    p = p * s + 81.60524927607504
    p = p * s - 41.341702240399755
    return (p * s + 6.283185307179586) * u


def cosine_of_turns(r):
    return quarter_sine(0.25 - abs(r))


def sine_of_turns(r):
    folded = 0.5 - r if r > 0.25 else r
    return quarter_sine(-0.5 - r if r < -0.25 else folded)


# ---------------------------------------------------------------------------------------------------------
# Losses of one output: the value, and its derivative by the output. `y` is the output (a logit where the loss
# has a link of its own), `t` the target.
# ---------------------------------------------------------------------------------------------------------


def mse(y, t):
    """½(y − t)²."""
    d = y - t
    return 0.5 * d * d


def mse_derivative(y, t):
    return y - t


def mae(y, t):
    return abs(y - t)


def mae_derivative(y, t):
    d = y - t
    return 1.0 if d > 0.0 else (-1.0 if d < 0.0 else d)


def huber(y, t, delta):
    """Huber 1964: quadratic within delta, linear outside."""
    d = abs(y - t)
    return 0.5 * d * d if d <= delta else delta * (d - 0.5 * delta)


def huber_derivative(y, t, delta):
    d = y - t
    low = -delta if d < -delta else d
    return delta if low > delta else low


def poisson(y, t):
    """e^y − t y, the negative log-likelihood of a Poisson rate e^y without its constant log t!.

    Beyond y = 60 the exponential continues as its tangent, so that no finite output overflows float32.
    """
    inside = 60.0 if y > 60.0 else y
    rate = exp(inside)
    return rate + rate * (y - inside) - t * y


def poisson_deviance(y, t):
    """Half of a Poisson rate's deviance: the above with its constants t log t − t, least at 0."""
    return poisson(y, t) + (t * log(1.0 if t < 1e-30 else t) - t)


def poisson_derivative(y, t):
    return exp(60.0 if y > 60.0 else y) - t


def binary_cross_entropy(y, t, label_smoothing):
    """−t log σ(y) − (1 − t) log(1 − σ(y)), from the logit: max(y, 0) − t y + log(1 + e^−|y|)."""
    smoothed = t + label_smoothing * (0.5 - t)
    positive = 0.0 if y < 0.0 else y
    return positive - smoothed * y + log1p(exp(-abs(y)))


def ceiled_binary_cross_entropy(y, t, label_smoothing, ceiling):
    """The same with each probability's term at most `ceiling`: scikit-learn clips probabilities."""
    smoothed = t + label_smoothing * (0.5 - t)
    positive = 0.0 if y < 0.0 else y
    no = positive + log1p(exp(-abs(y)))
    yes = no - y
    lower_no = ceiling if no > ceiling else no
    lower_yes = ceiling if yes > ceiling else yes
    return smoothed * lower_yes + (1.0 - smoothed) * lower_no


def binary_cross_entropy_derivative(y, t, label_smoothing):
    return sigmoid(y) - (t + label_smoothing * (0.5 - t))


# Softmax cross-entropy is a loss of a whole row; its loop reduces the row, these are its terms.


def smoothed_indicator(is_class, label_smoothing, classes):
    """The target probability of a class under label smoothing (Szegedy et al. 2015, arXiv:1512.00567)."""
    uniform = label_smoothing / classes
    return uniform + (1.0 - label_smoothing if is_class else 0.0)


def smoothed_probability(t, label_smoothing, classes):
    return t + label_smoothing * (1.0 / classes - t)


def smoothed_mass(mass, label_smoothing):
    """The sum of a row of smoothed probabilities, from the sum before smoothing."""
    return mass + label_smoothing * (1.0 - mass)


def cross_entropy_term(log_probability, t):
    return 0.0 if t == 0.0 else -t * log_probability


def ceiled_cross_entropy_term(log_probability, t, ceiling):
    loss = ceiling if -log_probability > ceiling else -log_probability
    return 0.0 if t == 0.0 else t * loss


def cross_entropy_derivative(probability, t, mass):
    """The derivative by the class's logit, for targets that sum to `mass`."""
    return probability * mass - t


def is_finite(x):
    return abs(x) < inf


def finite_or_zero(x):
    """The loss, or 0 where it overflowed, as loss scaling expects now and then."""
    return x if abs(x) < inf else 0.0


def rows_by_weight(rows, weight_sum):
    """The factor by which a batch's Σ w·loss counts by its rows; 0 where all weights are 0."""
    return rows / weight_sum if weight_sum > 0.0 else 0.0


# ---------------------------------------------------------------------------------------------------------
# Update rules: one weight w, its gradient g, its state; they return the new weight and the new state.
# ---------------------------------------------------------------------------------------------------------


def sgd(w, g, learning_rate):
    return w - learning_rate * g


def momentum(w, g, learning_rate, velocity, momentum, rate_in_velocity):
    """Polyak 1964: v ← μ v + g, w ← w − η v; with the rate in the velocity, v ← μ v + η g, w ← w − v."""
    v = momentum * velocity + (learning_rate * g if rate_in_velocity else g)
    return w - (v if rate_in_velocity else learning_rate * v), v


def nesterov(w, g, learning_rate, velocity, momentum, rate_in_velocity):
    """Nesterov's momentum as Sutskever et al. 2013 rewrite it, the weights kept at the look-ahead point."""
    d = learning_rate * g if rate_in_velocity else g
    v = momentum * velocity + d
    return w - (d + momentum * v if rate_in_velocity else learning_rate * (d + momentum * v)), v


def adagrad(w, g, learning_rate, squares, epsilon):
    """Duchi et al. 2011."""
    s = squares + g * g
    return w - learning_rate * g / (sqrt(s) + epsilon), s


def rmsprop(w, g, learning_rate, squares, decay, epsilon):
    """Tieleman and Hinton 2012."""
    s = decay * squares + (1.0 - decay) * (g * g)
    return w - learning_rate * g / (sqrt(s) + epsilon), s


def rmsprop_decay_unseen(steps, decay):
    """The factor of the average after `steps` steps without a gradient: ρ to their power."""
    return decay**steps


def adam(w, g, learning_rate, first_moment, second_moment, beta1, beta2, epsilon, correction1, correction2):
    """Kingma and Ba 2014 (arXiv:1412.6980), algorithm 1; the corrections are those of `adam_corrections`."""
    m = beta1 * first_moment + (1.0 - beta1) * g
    v = beta2 * second_moment + (1.0 - beta2) * (g * g)
    return w - learning_rate * correction1 * m / (sqrt(v) * correction2 + epsilon), m, v


def adam_corrections(step, beta1, beta2, epsilon_hat):
    """1/(1 − β₁ᵗ) and 1/√(1 − β₂ᵗ): the bias corrections of step t, counted from 1.

    With ε̂, which stands outside the correction, their quotient and 1: the form at the end of section 2.
    """
    first = 1.0 / (1.0 - beta1**step)
    second = 1.0 / sqrt(1.0 - beta2**step)
    return (first / second if epsilon_hat else first), (1.0 if epsilon_hat else second)


def decoupled_decay(w, learning_rate, weight_decay):
    """Loshchilov and Hutter 2017 (arXiv:1711.05101)."""
    return w - learning_rate * weight_decay * w


def penalty(w, l1, l2):
    """l1 |w| + ½ l2 w²."""
    return l1 * abs(w) + 0.5 * l2 * w * w


def penalty_derivative(w, l1, l2):
    sign = 1.0 if w > 0.0 else (-1.0 if w < 0.0 else w)
    return l1 * sign + l2 * w


# ---------------------------------------------------------------------------------------------------------
# Dynamic loss scaling (Micikevicius et al. 2017, arXiv:1710.03740, section 3.2): small gradients would be
# zero in float16, so the loss's gradient is multiplied by the largest scale that does not overflow.
# ---------------------------------------------------------------------------------------------------------

FIRST_LOSS_SCALE = 65536.0
LEAST_LOSS_SCALE = 1.0
GREATEST_LOSS_SCALE = 18446744073709551616.0  # 2⁶⁴: float32 divides by it without a denormal
CLEAN_STEPS_TO_GROW = 2000.0


def scale_after(overflowed, scale, clean_steps):
    """The loss scale after a step, and the number of steps without an overflow since it changed.

    Halved by an overflow, doubled after 2000 steps without one.
    """
    clean = 0.0 if overflowed else clean_steps + 1.0
    grows = clean >= CLEAN_STEPS_TO_GROW
    half = 0.5 * scale
    smaller = LEAST_LOSS_SCALE if half < LEAST_LOSS_SCALE else half
    twice = 2.0 * scale
    greater = GREATEST_LOSS_SCALE if twice > GREATEST_LOSS_SCALE else twice
    kept = greater if grows else scale
    return (smaller if overflowed else kept), (0.0 if grows else clean)


# ---------------------------------------------------------------------------------------------------------
# Random draws: functions of a counter and a key, with no state (Salmon et al. 2011, "Parallel random numbers:
# as easy as 1, 2, 3"). A draw serves four consecutive elements of a row; each row begins a new block.
# ---------------------------------------------------------------------------------------------------------


def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10: four random 32-bit words from a counter of four and a key of two."""
    for _ in range(10):
        p0 = u64(c0) * u64(0xD2511F53)
        p1 = u64(c2) * u64(0xCD9E8D57)
        c0 = u32(u32(p1 >> u64(32)) ^ c1 ^ k0)
        c2 = u32(u32(p0 >> u64(32)) ^ c3 ^ k1)
        c1 = u32(p1)
        c3 = u32(p0)
        k0 = u32(k0 + u32(0x9E3779B9))
        k1 = u32(k1 + u32(0xBB67AE85))
    return c0, c1, c2, c3


def bounded(word, count):
    """A whole number in [0, count): the word's share of 2³², of `count`, rounded down."""
    return int32(u32(u64(word) * u64(count) >> u64(32)))


# ---------------------------------------------------------------------------------------------------------
# Augmentation: the source of each element of a picture that is mirrored and then moved. Its edges are
# repeated where it is moved away from them.
# ---------------------------------------------------------------------------------------------------------


def clamped(place, size):
    """The place in [0, size) that is nearest."""
    inside = place if place < size else size - 1
    return inside if inside > 0 else 0


def moved_place(line, x, down, right, flipped, height, width):
    """The source, in its row, of the element at a line and column; the lines count through all channels."""
    y = line % height
    source = clamped(x - right, width)
    mirrored = width - 1 - source if flipped else source
    return (line - y + clamped(y - down, height)) * width + mirrored


def is_erased(line, x, top, left, tall, wide, height):
    """Whether the element is in a rectangle, which is the same for all channels and empty if 0 high."""
    y = line % height
    return y >= top and y < top + tall and x >= left and x < left + wide
