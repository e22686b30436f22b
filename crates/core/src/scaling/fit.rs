//! Least squares: a straight line or a parabola through points, with the interval of one more observation.

/// The most unknowns: a parabola has three.
const MOST: usize = 3;

/// Quantiles 97.5 % of Student's t distribution for 1 to 30 degrees of freedom; from any table of it.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
/// The same for more: that of the normal distribution.
const NORMAL: f64 = 1.960;

/// A polynomial through points.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// From the constant upwards.
    coefficients: Vec<f64>,
    /// The inverse of the normal equations' matrix.
    inverse: [[f64; MOST]; MOST],
    /// Standard deviation of a point from the line.
    deviation: f64,
    /// Quantile of t for the degrees of freedom.
    t: f64,
}

impl Line {
    /// Fits a polynomial of a degree (1 or 2). `None` if there are too few points, or too few different places.
    pub(super) fn fit(points: &[(f64, f64)], degree: usize) -> Option<Self> {
        let unknowns = degree + 1;
        if points.len() <= unknowns || unknowns > MOST {
            return None;
        }
        let mut matrix = [[0.0; MOST]; MOST];
        let mut right = [0.0; MOST];
        for (x, y) in points {
            for (row, power) in powers(*x).into_iter().enumerate().take(unknowns) {
                right[row] += power * y;
                for (cell, other) in matrix[row].iter_mut().zip(powers(*x)).take(unknowns) {
                    *cell += power * other;
                }
            }
        }
        let inverse = invert(&matrix, unknowns)?;
        let coefficients: Vec<f64> =
            (0..unknowns).map(|row| (0..unknowns).map(|c| inverse[row][c] * right[c]).sum()).collect();
        let freedom = points.len() - unknowns;
        let mut line =
            Self { coefficients, inverse, deviation: 0.0, t: T.get(freedom - 1).copied().unwrap_or(NORMAL) };
        let squares: f64 = points.iter().map(|(x, y)| (y - line.at(*x)).powi(2)).sum();
        line.deviation = (squares / freedom as f64).sqrt();
        Some(line)
    }

    /// The value at a place.
    pub(super) fn at(&self, x: f64) -> f64 {
        self.coefficients.iter().zip(powers(x)).map(|(c, p)| c * p).sum()
    }

    /// The coefficient of the highest power.
    pub(super) fn slope(&self) -> f64 {
        self.coefficients.last().copied().unwrap_or(0.0)
    }

    /// Standard deviation of a point from the line.
    pub(super) fn deviation(&self) -> f64 {
        self.deviation
    }

    /// Half of the 95 % interval for one more observation at a place.
    pub(super) fn half_width(&self, x: f64) -> f64 {
        let p = powers(x);
        let n = self.coefficients.len();
        let lever: f64 = (0..n)
            .map(|row| (0..n).map(|column| p[row] * self.inverse[row][column] * p[column]).sum::<f64>())
            .sum();
        self.t * self.deviation * (1.0 + lever.max(0.0)).sqrt()
    }

    /// The largest coefficient of the highest power that chance allows (95 %).
    pub(super) fn steepest(&self) -> f64 {
        self.slope() + self.t * self.error()
    }

    /// Standard error of the coefficient of the highest power.
    fn error(&self) -> f64 {
        let last = self.coefficients.len() - 1;
        self.deviation * self.inverse[last][last].max(0.0).sqrt()
    }

    /// Whether the highest coefficient differs from 0 by more than chance explains (95 %).
    pub(super) fn significant(&self) -> bool {
        self.slope().abs() > self.t * self.error()
    }
}

fn powers(x: f64) -> [f64; MOST] {
    [1.0, x, x * x]
}

/// The inverse of the upper left part of a matrix; `None` if there is none.
fn invert(matrix: &[[f64; MOST]; MOST], n: usize) -> Option<[[f64; MOST]; MOST]> {
    let mut left = *matrix;
    let mut right = [[0.0; MOST]; MOST];
    for (i, row) in right.iter_mut().enumerate() {
        row[i] = 1.0;
    }
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| left[*a][column].abs().total_cmp(&left[*b][column].abs()))?;
        // Relative to what stood there: equal places leave nothing but rounding.
        if left[pivot][column].abs() <= 1e-9 * matrix[column][column].abs().max(f64::MIN_POSITIVE) {
            return None;
        }
        left.swap(column, pivot);
        right.swap(column, pivot);
        let by = left[column][column];
        for k in 0..n {
            left[column][k] /= by;
            right[column][k] /= by;
        }
        for row in (0..n).filter(|r| *r != column) {
            let by = left[row][column];
            for k in 0..n {
                left[row][k] -= by * left[column][k];
                right[row][k] -= by * right[column][k];
            }
        }
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, within: f64) {
        assert!((a - b).abs() <= within, "{a} is not {b}");
    }

    /// A known example: Montgomery, Peck, Vining, "Introduction to Linear Regression Analysis", rules of simple regression done by hand.
    #[test]
    fn a_line_and_its_interval_are_those_of_the_textbook() {
        let points = [(1.0, 2.0), (2.0, 3.0), (3.0, 5.0), (4.0, 6.0), (5.0, 8.0)];
        let line = Line::fit(&points, 1).expect("fits");
        // Mean of x 3, of y 4.8; Sxx 10, Sxy 15: slope 1.5, constant 0.3; residuals 0.2 -0.3 0.2 -0.3 0.2.
        close(line.slope(), 1.5, 1e-9);
        close(line.at(0.0), 0.3, 1e-9);
        close(line.deviation(), (0.3_f64 / 3.0).sqrt(), 1e-9);
        // s * t * sqrt(1 + 1/5 + (8 - 3)^2 / 10)
        close(line.half_width(8.0), 3.182 * 0.1_f64.sqrt() * (1.0_f64 + 0.2 + 2.5).sqrt(), 1e-6);
        assert!(line.significant());
    }

    #[test]
    fn a_parabola_is_found_exactly() {
        let points: Vec<(f64, f64)> =
            (1..8).map(|x| f64::from(x) / 4.0).map(|x| (x, 3.0 + 2.0 * x + 5.0 * x * x)).collect();
        let line = Line::fit(&points, 2).expect("fits");
        close(line.slope(), 5.0, 1e-6);
        close(line.at(3.0), 54.0, 1e-6);
    }

    #[test]
    fn too_few_points_or_places_have_no_line() {
        assert!(Line::fit(&[(1.0, 1.0), (2.0, 2.0)], 1).is_none());
        assert!(Line::fit(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)], 1).is_none());
        assert!(Line::fit(&[(1.0, 1.0), (1.0, 2.0), (2.0, 3.0), (2.0, 2.0)], 2).is_none());
    }

    /// About one of twenty observations may lie outside of an interval of 95 %.
    #[test]
    fn the_interval_covers_what_it_says() {
        let mut seed = 1_u64;
        let mut noise = || {
            // The sum of twelve uniform numbers is nearly normal, of variance 1.
            (0..12)
                .map(|_| {
                    seed =
                        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (seed >> 11) as f64 / (1_u64 << 53) as f64
                })
                .sum::<f64>()
                - 6.0
        };
        let mut outside = 0;
        let runs = 2000;
        for _ in 0..runs {
            let points: Vec<(f64, f64)> = [0.125, 0.25, 0.5, 0.125, 0.25, 0.5]
                .iter()
                .map(|x| (*x, 100.0 + 400.0 * x + 10.0 * noise()))
                .collect();
            let line = Line::fit(&points, 1).expect("fits");
            let observed = 500.0 + 10.0 * noise();
            if (observed - line.at(1.0)).abs() > line.half_width(1.0) {
                outside += 1;
            }
        }
        let share = f64::from(outside) / f64::from(runs);
        assert!((0.035..0.065).contains(&share), "{share}");
    }
}
