"""The functions of exported C files: each file has those that it uses, in this order."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ACTIVATIONS", "HELPERS", "LINKS"]

# A link's name, and the function that turns raw outputs into predictions.
LINKS: Mapping[str, str] = {"sigmoid": "to_sigmoids", "softmax": "to_softmax", "exp": "to_exponentials"}

_FORMULAS = {
    "sigmoid": "1.0f / (1.0f + expf(-z))",
    "tanh": "tanhf(z)",
    "relu": "z < 0.0f ? 0.0f : z",
    "leaky_relu": "z < 0.0f ? 0.01f * z : z",
    "elu": "z < 0.0f ? expm1f(z) : z",
    "gelu": "0.5f * z * (1.0f + erff(z * 0.70710678f))",
    "silu": "z / (1.0f + expf(-z))",
    "selu": "z < 0.0f ? 1.7580993f * expm1f(z) : 1.050701f * z",
    "mish": "z * tanhf(log1pf(expf(z)))",
    "softplus": "(z < 0.0f ? 0.0f : z) + log1pf(expf(-fabsf(z)))",
}
# An activation's name, and its function.
ACTIVATIONS: Mapping[str, str] = {name: f"{name}_of" for name in _FORMULAS}

HELPERS: Mapping[str, str] = {
    "number": """\
/* A number as the network reads it; a missing one is replaced. */
static double number(double value, double fill, double shift, double scale)
{
    return ((isnan(value) ? fill : value) - shift) * scale;
}""",
    "squeezed": """\
/* x within -3 and 3. */
static double squeezed(double x)
{
    return x / hypot(1.0, x / 3.0);
}""",
    "one_hot": """\
/* 1 at the place of a category's code, 0 elsewhere; a place of -1 is none. */
static void one_hot(double code, int places, int missing, int unseen, float *x)
{
    int place = isnan(code) ? missing : unseen;
    for (int i = 0; i < places; i++) {
        if (code == i && i != missing) place = i;
        x[i] = 0.0f;
    }
    if (place >= 0) x[place] = 1.0f;
}""",
    "dense": """\
/* y = x W + b, W of shape (inputs, units). */
static void dense(const float *x, int inputs, const float *weight, const float *bias, int units, float *y)
{
    for (int j = 0; j < units; j++) y[j] = bias ? bias[j] : 0.0f;
    for (int i = 0; i < inputs; i++) {
        const float *row = weight + (long)i * units;
        if (x[i] != 0.0f) for (int j = 0; j < units; j++) y[j] += x[i] * row[j];
    }
}""",
    "shares": """\
/* The inputs, then each number's share of the bins of its column: 0 below a bin, 1 above it. */
static void shares(const float *x, int inputs, const int *columns, const float *lows, const float *inverses,
                   int bins, float *y)
{
    for (int i = 0; i < inputs; i++) y[i] = x[i];
    for (int i = 0; i < bins; i++) {
        float share = (x[columns[i]] - lows[i]) * inverses[i];
        y[inputs + i] = share < 0.0f ? 0.0f : share > 1.0f ? 1.0f : share;
    }
}""",
    "layer_norm": """\
/* (x - mean) / sqrt(variance + epsilon) * weight + bias, in place. */
static void layer_norm(float *x, int width, const float *weight, const float *bias, double epsilon)
{
    double mean = 0.0, variance = 0.0;
    for (int i = 0; i < width; i++) mean += x[i] / (double)width;
    for (int i = 0; i < width; i++) variance += (x[i] - mean) * (x[i] - mean) / width;
    for (int i = 0; i < width; i++) {
        float y = (float)((x[i] - mean) / sqrt(variance + epsilon)) * weight[i];
        x[i] = bias ? y + bias[i] : y;
    }
}""",
    **{
        name: f"static float {name}_of(float z)\n{{\n    return {formula};\n}}"
        for name, formula in _FORMULAS.items()
    },
    "to_sigmoids": """\
static void to_sigmoids(float *z, int count)
{
    for (int i = 0; i < count; i++) z[i] = 1.0f / (1.0f + expf(-z[i]));
}""",
    "to_softmax": """\
static void to_softmax(float *z, int count)
{
    float greatest = z[0], sum = 0.0f;
    for (int i = 1; i < count; i++) if (z[i] > greatest) greatest = z[i];
    for (int i = 0; i < count; i++) sum += z[i] = expf(z[i] - greatest);
    for (int i = 0; i < count; i++) z[i] /= sum;
}""",
    "to_exponentials": """\
static void to_exponentials(float *z, int count)
{
    for (int i = 0; i < count; i++) z[i] = expf(z[i]);
}""",
    "interpolated": """\
/* The value at x of a function that is linear between knots, and constant beyond the last. */
static double interpolated(double x, const double *knots, const double *values, int count)
{
    int i = 1;
    if (x <= knots[0]) return values[0];
    if (x >= knots[count - 1]) return values[count - 1];
    while (x > knots[i]) i++;
    return values[i - 1] + (x - knots[i - 1]) / (knots[i] - knots[i - 1]) * (values[i] - values[i - 1]);
}""",
}
