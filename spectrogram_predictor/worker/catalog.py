"""What of Keras a model may be made of: every class and function by the module that it is found in.

All of `keras.layers` is sorted: accepted unless it can run code, read files or fetch. What is not named here is
refused.
"""

from collections.abc import Mapping


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LAYERS = """
Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention
AugMix AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D AvgPool3D
BatchNormalization Bidirectional CategoryEncoding CenterCrop Concatenate
ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D
Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D Convolution1DTranspose Convolution2D
Convolution2DTranspose Convolution3D Convolution3DTranspose Cropping1D Cropping2D Cropping3D CutMix Dense
DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten GRU
GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D
GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention
GroupedQueryAttention HashedCrossing Hashing Identity InputLayer LSTM LSTMCell LayerNormalization LeakyReLU
Masking MaxNumBoundingBoxes MaxPool1D MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D MaxPooling3D Maximum
MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute Pipeline RMSNormalization
RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing ReversibleEmbedding STFTSpectrogram
SeparableConv1D SeparableConv2D SeparableConvolution1D SeparableConvolution2D SimpleRNN SimpleRNNCell Softmax
Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells Subtract
TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
ZeroPadding3D
"""

REFUSED: Mapping[str, str] = {
    "Lambda": "holds Python code",
    "TFSMLayer": "runs a program from another file",
    "TorchModuleWrapper": "runs a pickled program",
    "JaxLayer": "runs Python code",
    "FlaxLayer": "runs Python code",
    "StringLookup": "reads a vocabulary, which may be any file or address",
    "IntegerLookup": "reads a vocabulary, which may be any file or address",
    "IndexLookup": "reads a vocabulary, which may be any file or address",
    "TextVectorization": "reads a vocabulary, which may be any file or address",
    "FeatureSpace": "reads vocabularies, which may be any files or addresses",
    "Layer": "does nothing of its own",
    "Wrapper": "does nothing of its own",
    "InputSpec": "is no layer",
}
"""The rest of `keras.layers`, and what else may look like a layer: why they are refused."""

_INITIALIZERS = """
Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform
Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform STFT STFTInitializer TruncatedNormal
VarianceScaling Zeros
"""
_REGULARIZERS = "L1 L1L2 L2 OrthogonalRegularizer"
_CONSTRAINTS = "MaxNorm MinMaxNorm NonNeg UnitNorm"
_LOSSES = """
BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy CategoricalFocalCrossentropy
CategoricalGeneralizedCrossEntropy CategoricalHinge Circle CosineSimilarity Dice Hinge Huber KLDivergence
LogCosh MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogarithmicError Poisson
SparseCategoricalCrossentropy SquaredHinge Tversky
"""
_METRICS = """
AUC Accuracy BinaryAccuracy BinaryCrossentropy BinaryIoU CategoricalAccuracy CategoricalCrossentropy
CategoricalHinge ConcordanceCorrelation CosineSimilarity F1Score FBetaScore FalseNegatives FalsePositives Hinge
IoU KLDivergence LogCoshError Mean MeanAbsoluteError MeanAbsolutePercentageError MeanIoU MeanMetricWrapper
MeanSquaredError MeanSquaredLogarithmicError OneHotIoU OneHotMeanIoU PearsonCorrelation Poisson Precision
PrecisionAtRecall R2Score Recall RecallAtPrecision RootMeanSquaredError SensitivityAtSpecificity
SparseCategoricalAccuracy SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy SpecificityAtSensitivity
SquaredHinge Sum TopKCategoricalAccuracy TrueNegatives TruePositives
"""
_OPTIMIZERS = """
Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer Muon Nadam RMSprop SGD
ScheduleFreeAdamW
"""
_SCHEDULES = """
CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay PiecewiseConstantDecay PolynomialDecay
"""
_QUANTIZERS = " AbsMaxQuantizer Float8QuantizationConfig Int4QuantizationConfig Int8QuantizationConfig"
_POLICIES = "DTypePolicy FloatDTypePolicy Int4DTypePolicy QuantizedDTypePolicy QuantizedFloat8DTypePolicy"
_MODELS = "Functional Model Sequential"

_ACTIVATIONS = """
celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear
log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus
sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
"""
_LOSS_FUNCTIONS = """
binary_crossentropy binary_focal_crossentropy categorical_crossentropy categorical_focal_crossentropy
categorical_generalized_cross_entropy categorical_hinge circle cosine_similarity ctc dice hinge huber
kl_divergence log_cosh mean_absolute_error mean_absolute_percentage_error mean_squared_error
mean_squared_logarithmic_error poisson sparse_categorical_crossentropy squared_hinge tversky
"""
_METRIC_FUNCTIONS = """
binary_accuracy categorical_accuracy concordance_correlation pearson_correlation sparse_categorical_accuracy
sparse_top_k_categorical_accuracy top_k_categorical_accuracy
"""

SAME_SHAPE_OPERATIONS = _names(
    """
    Abs Absolute Arctan Cast Ceil Clip ConvertToTensor Cos Cosh Cumprod Cumsum Elu Erf Exp Exp2 Expm1 Flip
    Floor Gelu
    HardSigmoid HardSilu HardTanh Isfinite Isinf Isnan LayerNorm LeakyRelu Log Log10 Log1p Log2 LogSigmoid
    LogSoftmax LogicalNot NanToNum Negative Normalize OnesLike RMSNorm Reciprocal Relu Relu6 Roll Round Rsqrt
    SaturateCast Selu Sigmoid Sign Silu Sin Sinh Softmax Softplus Softsign Sort Sqrt Square StopGradient Tan
    Tanh ZerosLike
    """
)
BROADCASTING_OPERATIONS = _names(
    """
    Add Arctan2 Divide DivideNoNan Equal FloorDivide Greater GreaterEqual Less LessEqual Logaddexp LogicalAnd
    LogicalOr LogicalXor Maximum Minimum Mod Multiply NotEqual Power Subtract TrueDivide Where
    """
)
REDUCING_OPERATIONS = _names(
    """
    All Amax Amin Any Argmax Argmin Average CountNonzero Logsumexp Max Mean Median Min Norm Prod Ptp
    Std Sum Var
    """
)
SHAPING_OPERATIONS = _names(
    "Concatenate ExpandDims GetItem Matmul Moveaxis Reshape Split Squeeze Stack Swapaxes Transpose"
)
OPERATIONS = SAME_SHAPE_OPERATIONS | BROADCASTING_OPERATIONS | REDUCING_OPERATIONS | SHAPING_OPERATIONS
"""Single operations of `keras.ops` between layers. None takes a function, none makes much of little."""

_OPERATION_MODULES = [f"keras.src.ops.{name}" for name in ("numpy", "nn", "math", "core", "linalg")]

LAYERS = _names(_LAYERS)
MODELS = _names(_MODELS)
ACTIVATIONS = _names(_ACTIVATIONS)

CLASSES: Mapping[str, frozenset[str]] = {
    "keras.layers": LAYERS,
    "keras.models": MODELS - {"Functional"},
    "keras": MODELS - {"Functional"} | _names(_POLICIES + _QUANTIZERS),
    "keras.src.models.functional": frozenset(["Functional"]),
    "keras.initializers": _names(_INITIALIZERS),
    "keras.regularizers": _names(_REGULARIZERS),
    "keras.constraints": _names(_CONSTRAINTS),
    "keras.losses": _names(_LOSSES),
    "keras.metrics": _names(_METRICS),
    "keras.optimizers": _names(_OPTIMIZERS),
    "keras.optimizers.schedules": _names(_SCHEDULES),
    "keras.quantizers": _names(_QUANTIZERS),
    "keras.dtype_policies": _names(_POLICIES),
    **dict.fromkeys(_OPERATION_MODULES, OPERATIONS),
}
"""By the module that a file says."""

PLAIN_CLASSES = frozenset().union(*(CLASSES[module] for module in CLASSES if module not in _OPERATION_MODULES))
"""Where a file says no module, as Keras 2 and HDF5 files do."""

FUNCTIONS: Mapping[str, frozenset[str]] = {
    "keras.activations": ACTIVATIONS,
    "keras.ops": ACTIVATIONS,
    "keras.losses": _names(_LOSS_FUNCTIONS),
    "keras.metrics": _names(_LOSS_FUNCTIONS + _METRIC_FUNCTIONS),
    "builtins": ACTIVATIONS | _names(_LOSS_FUNCTIONS + _METRIC_FUNCTIONS),
}
"""By the module that a file says; ``builtins`` is where Keras looks through its own."""
