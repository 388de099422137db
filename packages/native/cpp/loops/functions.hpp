// Scalar functions of the loops. NaN passes through all of them: a diverged run must show.
#pragma once

namespace frugal {
namespace {

inline float notBelow(float low, float v) { return v < low ? low : v; }
inline float relu(float v) { return notBelow(0.0f, v); }
inline float larger(float a, float b) { return (a > b) | (a != a) ? a : b; }

}  // namespace
}  // namespace frugal
