"""The teachers' own heads, reused behind a linear map from the student's features: what a taught network learns.

"Knowledge Distillation with the Reused Teacher Classifier" (Chen et al. 2022): the student learns to predict the
features that a teacher's head reads, and answers through that head. Everything after the student's pooled features is
linear, so that in the end it is one dense layer like any other head, and Grad-CAM stays what it was.
"""

import keras
import numpy as np

RIDGE = 0.3  # of the features' mean variance, added where the map is fitted to fewer pictures than would do without


class ReusedHead(keras.layers.Layer):
    """Map pooled features to the teachers' standardised features, and these to logits.

    With student features f (channels), map A and a, teachers' heads H and h, the logits are (f A + a) H + h. A and a
    are learned; H and h are the teachers', with standard deviations and means of their features multiplied in.
    """

    def __init__(self, kernel: np.ndarray, bias: np.ndarray, head_kernel: np.ndarray, head_bias: np.ndarray) -> None:
        """Take the map's first weights, and the heads.

        Args:
            kernel: float32 (channels, features), and bias (features,), from `fit_map`.
            head_kernel: float32 (features, findings), and head_bias (findings,): from standardised features to logits.
        """
        super().__init__(name="logits", dtype="float32")  # training looks the head up by this name
        self.kernel, self.bias = self._weight("kernel", kernel), self._weight("bias", bias)  # a bias does not decay
        self.head_kernel = self._weight("head_kernel", head_kernel, trainable=False)
        self.head_bias = self._weight("head_bias", head_bias, trainable=False)

    def _weight(self, name: str, start: np.ndarray, trainable: bool = True) -> keras.Variable:
        first = keras.initializers.Constant(start)
        return self.add_weight(shape=start.shape, initializer=first, trainable=trainable, name=name)

    def call(self, pooled, cells):
        """Return logits (n, findings), those of every cell (n, h, w, findings), and features (n, features).

        Args:
            pooled: float32 (n, channels).
            cells: float32 (n, h, w, channels), whose mean over h and w is `pooled`.
        """
        kernel = keras.ops.matmul(self.kernel, self.head_kernel)  # a small product in place of one for every cell
        bias = keras.ops.matmul(self.bias[None], self.head_kernel)[0] + self.head_bias
        features = keras.ops.matmul(pooled, self.kernel) + self.bias
        return keras.ops.matmul(pooled, kernel) + bias, keras.ops.matmul(cells, kernel) + bias, features

    def as_dense(self) -> list[np.ndarray]:
        """Return kernel (channels, findings) and bias (findings,), float32, of the one dense layer that this is."""
        parts = (self.kernel, self.bias, self.head_kernel, self.head_bias)
        kernel, bias, head_kernel, head_bias = (one.numpy().astype(np.float64) for one in parts)
        return [(kernel @ head_kernel).astype(np.float32), (bias @ head_kernel + head_bias).astype(np.float32)]


def fit_map(features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit targets by ridge regression on features: training begins where the student's features already lead.

    Args:
        features: (n, channels) of the student.
        targets: (n, k), standardised; a row of NaN is left out.
    Returns: kernel (channels, k) and bias (k,), float32.
    """
    rows = ~np.isnan(targets).any(axis=1)
    known, wanted = features[rows].astype(np.float64), targets[rows].astype(np.float64)
    if not len(known):
        return np.zeros((features.shape[1], targets.shape[1]), np.float32), np.zeros(targets.shape[1], np.float32)
    middle, level = known.mean(axis=0), wanted.mean(axis=0)
    scatter = (known - middle).T @ (known - middle)
    scatter[np.diag_indices_from(scatter)] += RIDGE * np.trace(scatter) / len(scatter) + np.finfo(np.float32).tiny
    kernel = np.linalg.solve(scatter, (known - middle).T @ (wanted - level))
    return kernel.astype(np.float32), (level - middle @ kernel).astype(np.float32)
