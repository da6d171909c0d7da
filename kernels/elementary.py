"""Elementary functions in float32 that a vector unit can run: exp, expm1, log, log1p, tanh, erf.

Python's and Numba's own are scalar calls in a loop. These are polynomials after range reduction, written like
formulas so that `specialise` inlines them; a power of two is built in the bits of an integer. Coefficients:
Cephes (exp, log) and Eigen (tanh, erf), checked against float64 in the tests. The largest errors there, in
units in the last place of the result: exp 2, expm1 2, log 1, log1p 2, tanh 5, erf 7.
"""

from __future__ import annotations

from math import inf, nan

from numpy import float32, int32

__all__ = ["FLOAT32"]


LARGEST = 88.72283172607422  # e^x is infinite beyond
SMALLEST = -87.3365478515625  # and no normal number below


def reduced_exp(x):
    """e^r − 1, and 2^n in two factors since n may be 128: x = r + n log 2, |r| ≤ ½ log 2."""
    # Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the significand.
    shifted = x * 1.4426950408889634 + 12582912.0
    n = shifted - 12582912.0
    r = x - n * 0.693359375 + n * 2.12194440e-4
    p = 1.9875691500e-4
    p = p * r + 1.3981999507e-3
    p = p * r + 8.3334519073e-3
    p = p * r + 4.1665795894e-2
    p = p * r + 1.6666665459e-1
    p = p * r + 5.0000001201e-1
    k = int32(n)
    half = k >> 1
    power1 = int32((half + 127) << 23).view(float32)
    power2 = int32((k - half + 127) << 23).view(float32)
    return p * r * r + r, power1, power2


def exp(x):
    below = SMALLEST if x < SMALLEST else x
    inside = LARGEST if below > LARGEST else below
    e, power1, power2 = reduced_exp(inside)
    finite = 0.0 if x < SMALLEST else (e + 1.0) * power1 * power2
    return inf if x > LARGEST else finite


def expm1(x):
    below = -17.5 if x < -17.5 else x
    inside = LARGEST if below > LARGEST else below
    e, power1, power2 = reduced_exp(inside)
    scaled = (e * power1 + (power1 - 1.0 / power2)) * power2
    return inf if x > LARGEST else scaled


def log(x):
    """As NumPy's, but for denormal x, which are taken for the least normal number."""
    normal = 1.1754943508222875e-38 if x < 1.1754943508222875e-38 else x
    bits = float32(normal).view(int32)
    # The significand is brought into [sqrt(1/2), sqrt(2)).
    exponent = (bits - int32(0x3F3504F3)) >> 23
    m = int32(bits - (exponent << 23)).view(float32) - 1.0
    k = float32(exponent)
    s = m * m
    p = 7.0376836292e-2
    p = p * m - 1.1514610310e-1
    p = p * m + 1.1676998740e-1
    p = p * m - 1.2420140846e-1
    p = p * m + 1.4249322787e-1
    p = p * m - 1.6668057665e-1
    p = p * m + 2.0000714765e-1
    p = p * m - 2.4999993993e-1
    p = p * m + 3.3333331174e-1
    y = p * m * s - 2.12194440e-4 * k - 0.5 * s
    finite = m + y + 0.693359375 * k
    positive = finite if x < inf else x
    outside = -inf if x == 0.0 else nan
    return positive if x > 0.0 else outside


def log1p(x):
    """The rounding of 1 + x is put back through the derivative; at -1 and infinity there is none."""
    u = 1.0 + x
    lost = (x - (u - 1.0)) / u
    return log(u) + (lost if abs(lost) < 1.0 else 0.0)


def tanh(x):
    low = -7.90531110763549805 if x < -7.90531110763549805 else x
    c = 7.90531110763549805 if low > 7.90531110763549805 else low
    s = c * c
    p = -2.76076847742355e-16
    p = p * s + 2.00018790482477e-13
    p = p * s - 8.60467152213735e-11
    p = p * s + 5.12229709037114e-08
    p = p * s + 1.48572235717979e-05
    p = p * s + 6.37261928875436e-04
    p = p * s + 4.89352455891786e-03
    q = 1.19825839466702e-06
    q = q * s + 1.18534705686654e-04
    q = q * s + 2.26843463243900e-03
    q = q * s + 4.89352518554385e-03
    # The quotient first: c * p would lose bits as a denormal for tiny x.
    return c * (p / q)


def erf(x):
    low = -4.0 if x < -4.0 else x
    c = 4.0 if low > 4.0 else low
    s = c * c
    p = -2.72614225801306e-10
    p = p * s + 2.77068142495902e-08
    p = p * s - 2.10102402082508e-06
    p = p * s - 5.69250639462346e-05
    p = p * s - 7.34990630326855e-04
    p = p * s - 2.95459980854025e-03
    p = p * s - 1.60960333262415e-02
    q = -1.45660718464996e-05
    q = q * s - 2.13374055278905e-04
    q = q * s - 1.68282697438203e-03
    q = q * s - 7.37332916720468e-03
    q = q * s - 1.42647390514189e-02
    y = c * (p / q)
    # Near 4 the quotient passes 1 by two units in the last place.
    above = -1.0 if y < -1.0 else y
    return 1.0 if above > 1.0 else above


FLOAT32 = {function.__name__: function for function in (exp, expm1, log, log1p, tanh, erf)}
