"""Spectrograms as matplotlib drew them, pixel for pixel, without matplotlib: pure functions, no files.

Models are trained on the pictures that notebooks drew; drawn otherwise, a picture is a wrong input. The steps are
here: levels, `mesh` in `axes` or `image` over a whole canvas, colours, grey, a window, a new size. Names are
librosa's and matplotlib's. A box or a window is (left, top, right, bottom) in pixels from the upper left corner,
as in PIL.
"""

import base64
import functools
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.uint8]
Picture = NDArray[np.uint8]
Indices = NDArray[np.intp]
Box = tuple[float, float, float, float]
Window = tuple[int, int, int, int]
Taps = list[tuple[Indices, Indices]]
Release = Literal["3.3", "3.10", "3.11"]

_MENDED = {"3.3": False, "3.10": False, "3.11": True}
_SHIFT = 8
_SUBPIXELS = 2**_SHIFT
_WEIGHT_SHIFT = 14


def levels(S: NDArray[Any], low: float, high: float, steps: int = 256) -> Levels:
    """Scale to levels 0..255.

    Parameters
    ----------
    S : np.ndarray
        Any numbers.
    low, high : float
        What becomes the first level, and the last; where they are the same, all is the first.
    steps : int in 1..256
        256 as matplotlib's colour maps do it, 255 as ``(255 * scaled).astype(np.uint8)``.

    Returns
    -------
    levels : np.ndarray [shape of S, dtype=uint8]
        Rounded down.
    """
    scaled = (S - low) / ((high - low) or 1)
    return np.clip(scaled * steps, 0, 255).astype(np.uint8)


def mesh(levels: Levels, box: Box, snap: bool = False) -> Levels:
    """Draw cells of one size into a box as ``pcolormesh`` does, the first row at the bottom.

    Parameters
    ----------
    levels : np.ndarray [shape=(m, n), dtype=uint8]
        The cells.
    box : tuple of float [pixels]
        Where they go.
    snap : bool
        Whether cells are moved to whole pixels: matplotlib's default since 3.4.

    Returns
    -------
    drawn : np.ndarray [dtype=uint8]
        Levels of the box's pixels, its sides rounded to whole ones.

    Notes
    -----
    Agg knows corners to 1/256 pixel. Without anti-aliasing it paints each pixel that a cell touches at all, cell
    after cell, to the right and upwards: what is seen is the last cell that touches a pixel, not the one at its
    centre.
    """
    left, top, right, bottom = box
    unit = 1 if snap else _SUBPIXELS
    columns = np.arange(_round(left), _round(right))
    rows = np.arange(_round(top), _round(bottom))
    along = np.searchsorted(_edges(left, right, levels.shape[1], unit), (columns + 1) * unit) - 1
    up = np.searchsorted(-_edges(bottom, top, levels.shape[0], unit), -rows * unit) - 1
    return levels[np.ix_(up, along)]


def axes(levels: Levels, height: int, width: int, box: Box, name: str, snap: bool, frame: bool) -> Picture:
    """Draw a `mesh` in axes on a white canvas.

    Parameters
    ----------
    levels, box, snap
        See `mesh`.
    height, width : int > 0 [pixels]
        The canvas.
    name : str
        See `colour`.
    frame : bool
        Whether a black frame is around the axes, on the pixels after their right and bottom ones.

    Returns
    -------
    picture : np.ndarray [shape=(height, width, 3), dtype=uint8]
        RGB.
    """
    left, top, right, bottom = (_round(side) for side in box)
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[top:bottom, left:right] = colour(mesh(levels, box, snap), name, rounded=True)
    if frame:
        _frame(picture[top : bottom + 1, left : right + 1])
    return picture


def _edges(first: float, last: float, cells: int, unit: int) -> NDArray[np.float64]:
    # Multiplied in matplotlib's order: an edge half-way between two pixels goes where its rounding takes it.
    edges: NDArray[np.float64] = np.floor((first + 1 / cells * (last - first) * np.arange(cells)) * unit + 0.5)
    return edges


def _round(x: float) -> int:
    return int(np.floor(x + 0.5))


def _frame(picture: Picture) -> None:
    # A black line of 0.8 pixels on whole ones covers 204/255 of each, and 184/255 of the two at its ends.
    for side in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        cover = np.full((len(side), 1), 204)
        cover[[0, -1]] = 184
        side[:] = side.astype(np.intp) * 255 * (256 - cover) // (256 * 255 + cover)


def image(
    picture: Levels, height: int, width: int, name: str, window: Window | None = None, matplotlib: Release = "3.3"
) -> Picture:
    """Draw levels over a whole canvas as ``imshow(picture, aspect="auto", cmap=name)`` does.

    Parameters
    ----------
    picture : np.ndarray [shape=(m, n), dtype=uint8]
        Levels, the first row at the top; their range becomes that of the colour map.
    height, width : int > 0 [pixels]
        The canvas.
    name : str
        See `colour`.
    window : tuple of int [pixels], optional
        The part of the canvas that is wanted, and all that is computed.
    matplotlib : "3.3", "3.10" or "3.11"
        Draw as this release: 3.3 stands for 3.3 to 3.9, whose pixels are the same; 3.10 mixes colours where those
        mixed levels; 3.11 also places and weighs a little otherwise what it mixes.

    Returns
    -------
    drawn : np.ndarray [dtype=uint8]
        RGB of the window.

    Notes
    -----
    A pixel is the cell at its centre where each side is drawn at once, twice or more than three times its size.
    Elsewhere it is a mixture by Agg's Hann filter, with positions in 1/256 of a cell and weights in 1/16384.
    """
    left, top, right, bottom = window or (0, 0, width, height)
    m, n = picture.shape
    mended = _MENDED[matplotlib]
    rows, columns = _row_positions(m, height), _column_positions(n, width, mended)
    values, low, high = picture.astype(np.float32), float(picture.min()), float(picture.max())
    if _is_plain(m, height) and _is_plain(n, width):
        rows, columns = (
            (_centres(m, height), _centres(n, width)) if mended else (_cells(rows, m), _cells(columns, n))
        )
        return colour(levels(values, low, high)[np.ix_(rows[top:bottom], columns[left:right])], name)
    taps = _taps(rows[top:bottom], m, height, mended), _taps(columns[left:right], n, width, mended)
    if matplotlib == "3.3" or (height >= 3 * m and width >= 3 * n):
        return colour(_mix_levels(values, low, high, *taps), name)
    cells = levels(values, low, high)
    mixed = np.stack([_mix(channel[cells], *taps) for channel in _tables()[name].T], axis=-1)
    return (mixed * 255).astype(np.uint8)


def _is_plain(cells: int, pixels: int) -> bool:
    return pixels > 3 * cells or pixels in (cells, 2 * cells)


def _cells(positions: Indices, cells: int) -> Indices:
    # The last pixels of a cell of more than 256 are rounded up to its end, beyond which Agg looks back.
    found: Indices = np.minimum(positions >> _SHIFT, cells - 1)
    return found


def _centres(cells: int, pixels: int) -> Indices:
    # Where a pixel's centre is between two cells, the first of them; Agg by itself takes the second.
    return -((2 * np.arange(pixels) + 1) * -cells // (2 * pixels)) - 1


def _row_positions(cells: int, pixels: int) -> Indices:
    positions: Indices = ((2 * np.arange(pixels) + 1) * cells * _SUBPIXELS + pixels) // (2 * pixels)
    return positions


def _column_positions(cells: int, pixels: int, mended: bool) -> Indices:
    # Agg's integer line: only its ends are rounded. It ended after the last pixel, and ends on it now.
    first, last = _row_positions(cells, pixels)[[0, -1]]
    steps, length = (max(pixels - 1, 1), last - first) if mended else (pixels, cells * _SUBPIXELS)
    stride, rest = divmod(length - 1, steps)
    k = np.arange(pixels)
    positions: Indices = first + k * stride + (k * (rest + 1) + rest) // steps
    return positions


def _taps(positions: Indices, cells: int, pixels: int, mended: bool) -> Taps:
    # What is mixed along one axis: every pixel's first cell and its weight, its second cell and its weight, ...
    scale = min(max(cells / pixels, 1.0), 200.0)
    step = _round(_SUBPIXELS / scale)
    start = positions + _SUBPIXELS // 2 - _round(_SUBPIXELS * scale)
    at = ((_SUBPIXELS - 1 - start % _SUBPIXELS) * step) >> _SHIFT
    weights = np.append(_hann(mended), 0)
    taps = []
    for number in range(-(-2 * _SUBPIXELS // step)):
        cell = ((start >> _SHIFT) + number) % (2 * cells)
        taps.append(
            (np.minimum(cell, 2 * cells - 1 - cell), weights[np.minimum(at + number * step, 2 * _SUBPIXELS)])
        )
    return taps


@functools.cache
def _hann(mended: bool) -> Indices:
    peak = _SUBPIXELS - mended
    x = (np.arange(2 * _SUBPIXELS) - peak) / _SUBPIXELS
    weights: Indices = np.floor((0.5 + 0.5 * np.cos(np.pi * x)) * 2**_WEIGHT_SHIFT + 0.5).astype(np.intp)
    if not mended:  # Agg set the first weight to the last, and lowered the peak for it
        weights[0] = weights[-1]
        weights[peak] -= weights[0]
    return weights


def _mix(values: NDArray[Any], rows: Taps, columns: Taps) -> NDArray[Any]:
    total = np.zeros((len(rows[0][0]), len(columns[0][0])), np.intp)
    mixed = np.zeros(total.shape)
    for row, row_weights in rows:
        for column, column_weights in columns:
            weights = (row_weights[:, None] * column_weights + 2 ** (_WEIGHT_SHIFT - 1)) >> _WEIGHT_SHIFT
            total += weights
            mixed += values[np.ix_(row, column)] * weights.astype(values.dtype)
    mixed /= total
    return mixed.astype(values.dtype)


def _mix_levels(values: NDArray[np.float32], low: float, high: float, rows: Taps, columns: Taps) -> Levels:
    # matplotlib squeezed them into 0.1..0.9 and back; the rounding on the way decides some pixels.
    offset, span = np.float32(0.1), np.float32((high - low) / 0.8 or 1)
    squeezed = (values - np.float32(low)) / span + offset
    limits = np.array([squeezed.min(), squeezed.max()])
    mixed, limits = ((part - offset) * span + np.float32(low) for part in (_mix(squeezed, rows, columns), limits))
    return levels(mixed, limits[0], limits[1])


def colour(levels: Levels, name: str, rounded: bool = False) -> Picture:
    """Look colours up.

    Parameters
    ----------
    levels : np.ndarray [dtype=uint8]
        Positions in the map.
    name : str
        One of `COLOURS`, which are named as in matplotlib.
    rounded : bool
        Round the colours' components: so do meshes; images round down.

    Returns
    -------
    picture : np.ndarray [shape of levels and (3,), dtype=uint8]
        RGB.
    """
    return (_tables()[name] * 255 + 0.5 * rounded).astype(np.uint8)[levels]


def grey(picture: Picture) -> Picture:
    """Turn RGB to grey as PIL's mode L does.

    Parameters
    ----------
    picture : np.ndarray [shape=(height, width, 3), dtype=uint8]
        RGB.

    Returns
    -------
    grey : np.ndarray [shape=(height, width), dtype=uint8]
        Grey levels.
    """
    return np.asarray(Image.fromarray(picture).convert("L"))


def crop(picture: Picture, window: Window) -> Picture:
    """Cut a window out.

    Parameters
    ----------
    picture : np.ndarray [shape=(height, width) or (height, width, 3), dtype=uint8]
        The whole.
    window : tuple of int [pixels]
        Left, top, right, bottom, inside of it.

    Returns
    -------
    part : np.ndarray [dtype=uint8]
        A view.
    """
    left, top, right, bottom = window
    return picture[top:bottom, left:right]


def resize(picture: Picture, height: int, width: int, resample: str = "bicubic") -> Picture:
    """Resize as PIL does.

    Parameters
    ----------
    picture : np.ndarray [shape=(m, n) or (m, n, 3), dtype=uint8]
        Grey levels or RGB.
    height, width : int > 0 [pixels]
        The new size.
    resample : "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos"
        PIL's filter; bicubic is its default since 7.0.

    Returns
    -------
    picture : np.ndarray [shape=(height, width) or (height, width, 3), dtype=uint8]
        The picture at its new size.
    """
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling[resample.upper()]))


@functools.cache
def _tables() -> dict[str, NDArray[np.float64]]:
    planes = np.frombuffer(zlib.decompress(base64.b85decode(_TABLES)), np.uint8).reshape(4, -1)
    tables = planes.T.copy().view("<i4").reshape(len(_TABLED), 3, 256)
    for _ in range(3):
        tables = tables.cumsum(axis=-1)
    x = np.linspace(0, 1, 256)
    knots = np.linspace(0, 255, len(_GREYS))
    greys = {"Greys": np.interp(255 * x, knots, _GREYS), "gray": x, "gray_r": 1 - x}
    return {name: np.stack([table] * 3, axis=1) for name, table in greys.items()} | dict(
        zip(_TABLED, tables.transpose(0, 2, 1) / 1e6, strict=True)
    )


_GREYS = np.array([255, 240, 217, 189, 150, 115, 82, 37, 0]) / 255
_TABLED = ("inferno", "magma", "plasma", "viridis")

COLOURS = ("Greys", "gray", "gray_r", *_TABLED)
"""The colour maps that `colour` knows."""

# matplotlib's tables (CC0) of _TABLED in millionths: the third differences along each channel as 32-bit integers,
# first the lowest byte of all, and so on, compressed.
_TABLES = (
    b"c-rk&NsJs<8GcJ`UEMuP&k}nw6D#(_Gd7txLc{_KkXZx-4!N=f`M@DU+)%^;B$PvrNL-K*QjkzkLbwG`B38-5j<AVPyvSfo?6DZznRv$2v-M"
    b"KTdynsbHPchwZqJOb^i*|M)vJ2j|NZ~>{r}s4c(Il+N0gn?KsYioaO*(55cc`f_dV$tqoPJ*eQj}NWp%k;Z^lh-3=`bALJA=y$A#0$n4=|Qo"
    b"Ey$KdKladGeY6i27|Ovc%isaBIVj>!?b32g$A|ki5G^hw!v`0T4-@Qg=P$o^vA56<A!w@qbn_gPqe1S1734OyAhlVX?W-c+<m0a9GdV>jDPH"
    b"z6DL3UshR1rzdU#A^3{J|yY$jGYtdRQ{?Jsb>dsoUa8obdo2{O2L~)d8BZK1L;Qpz}!;@1d9@{@saXq0~T)Pr2Ew8Ms)z%xpBvG-}I;G9RMk"
    b"cht4g`J%=rGBIV3HG5%wfQcOTi@`9peBw`hq5x1~_U*V-%)PxWXPySEIRwj9F+17Tf`)%D!nri33?p;3!<^J&+YC@YF`BSec|AtMwIqcYWy|"
    b"j@5eXc;$hi!NE%3(bA76@4ouRy|4V`Sa@?r-RYmcDD}R@d(GO~;==sg?CgK8-?(x8)>1V}rC;hBs0?9TrLVtSDiwp!_X^T;9qGUnYlbkAd?V"
    b"l(3kKXoUc=pR-06|x2e=?sB$N099gHJ@2rC4VL!SkLh!d9N(hON+z01+ll|fMI9~poA*wbr2**7{iG4c4p!_!Bf9&%5gxqN+YX}J-l@Pa1-K"
    b"P<V$Vr57cpV0EDxzY9IJD1M?_N`a`^y)i{Kb>qu=Iu9suofl2pL@O=6bt1azC2JAf#-RFix*D8<-+&su3mK((#7@a^6E;h7B^YsB)%3wR1~T"
    b"JC%d#Q2OBmLo+neK<{Nb285RVAVfM^Crg0%>rtnhA5;|3?RHBk3QBfKvah%4nigcnCu>b%I2Lb3hp5wZ%B;2JXVmVce_p>!Vq?hHPYv$Nx@#"
    b"KY}f%j)_I*(rX%$XxgyfXXIvtRnn*M9Z&H=cj})N5b;-51Wy+%9|bPyPAQ&%PW-&1g;48jYyFR*zQetAG4`AvTeYQfy*Xo21$3i{+@A4razb"
    b"GIeBn^3g{|SZS3n)RsR;ZdK#?dcCn4$4M0HR2gN-YuQi!XXI={-UK5vM+0kwKUe_3@N)#raA29l&x2X8&a+RBi;skxPSYfbn~gY%*1=0qE{R"
    b"kEth5FTG;27Rxz0mV=Owi?;>?Y+I}`Qh@O;Irj?F$+^+mlhKXGH~U(?s7u1;Nh;>Lm7qbtRjh0FVnPCR>aeC&Jvd@#lmchscPm6bK@m(i+GE"
    b"S45l*48hr%w4RWTe$eae;1b{?H0?G%INUO&~Rn2zi-elm3=?(Lgu-`@eHYA7ULvJ5G(RGpnw)~;;UsST^O?wK@mc|IaeNZK}uB;z9S2Tf*Y0"
    b")kmYizTrLhEl8Zc$z94BtNC1#DX{rb}IuS8IKLO|KE~}Q)<$-!!tQOV!@ZA2Y#~OVL`)4QrdGyNkm7^D)ymILM@jIm`3g;)@J9GTy#aF)d{K"
    b"=Wa<NJpP`-`Q5=lj0&$Su%MkQ!Sv4n?yTEK^+~BB?U$(9m;|9tgXEsif34%t`c-1}x*@er7BmG-OUoTtR;NX6XUBqZe7%4cV|Vj%nz@f<+1k"
    b"!>MJLq;(9*ow2}zOPLhf%)v<=8EK)Si8V_=%OncL;%JTgjiR%@Uxekc>1R*9^_}zIURtV}Th&Ib88tyVl^79`DU3V`fkJG$jtiIgP9O_z!3+"
    b"EV-VO?oKRC%N7J`Cb2!daJ!?U!;X0o(p_nK{-Y|5as2c<|&Kya&#8;O$=ht)`G@$3;C61I!|s2wFT5w$`}9wFEWG|GWeTR3TQdP^|k73EF`n"
    b"Ls#AR;W2FbrRz?6;I>(;)j2K;klCs$Hw}H2g8yVx=<H~h)Mf0ly(WoEHPsSooN+v3SKaR+=ezqMV9RFbGVd}7%hdzXf}ttkS&29$P7Ty5uh3"
    b">8ZsD+-MbAF>rP7zL&UMP*~stAGDQ(&S|*N#08PpwmODtMNT`xy`v_ehmiS%(Kl!CF2;sNT<Eo&l{=&-A^;;KDpZ@tv&y|0n-;L6{mkhy3#R"
    b"DOUlM)Vr4?s!E1?4m>#9hc1B$%QC&y>a;o71H&fvmDoR7)Ce>k-()=|_}M)-Ib0(2FV)*FfY%AVbGTnhHY1Qppbsp&L3#se;@M?M3>A3@MzX"
    b"fhipd!lacl@P&f@DXIvpcMQ@9ZqQ)*s8WN(kt%eiaVS!fL_;T1O=kpqi9z8DZw83oQ{O#ucw%^{FANKabA&uO$+DAgR9%^-!<5WdMykxrEE+"
    b"fIOiA0uE=d}q5*m<&GQc!hHlXr|UTdkcfVCOkdYU*)e$cjX+$bGMWGsn^_+nE*vm|P39-V0eqZ-rpx7eGEB(w=S@sm_=*@HXG)8sfV|F+bxQ"
    b"xS8MK*DU4Q?MIbL>Zg1iH#K9#xb^JL)9WF447-f!KP(|0k`Fkt@~)njL2G8^Q`YT6bogUu?x^T3{@J`Oi@86R93l>Y}vYx%(k+IK_r6c!YEQ"
    b"L->na<uG+U2do3*+P+D@~aimemRH0lN7#<#*I5>UunU8<^vtRuD=RPrWAZ*^gdhVUmXaD-{Kiq~iEnTvcnzlyA!R+V!fL7nu)mY~+!&=pj9o"
    b"TBH&51U@<tD%Hx;1KZ@=aC9HBI}P*>iqdUG}`OCO6w2T@8IuU(>R``;uJ|%eQh<Y+%DSQ80P1TCn7?HLdYEcz3kx`0G=Q<YRLrV-Fn2c5|3E"
    b"D>fQ!9_fsgF8H=1VpwZ)W_wJx-LARMb=0!)-%fxB_?&h4dTV3do!X8-7NB_&Y<YKU!fhP3gW)Vkyc}d5glRvmpg&->?xDRK8sy@03-=w#uv@"
    b"QoRiqB<^Wn0M`S$hk*QW8L^1`*T*X~H{NCcA)x0W&)mJ_lqf^5Y`Zs?A(u@f9y;<3H`bUFL$AMxF=+T^(15yq{cYu&cQt6kbU;qPF1Cu#D+m"
    b"Y2kQQt8Mmxh@&<Z9DA3*%t@D-!=MKyH9o%rmP#ltc{KBDrwk#YSB$aIza5^mv*J>$d(&Gv<c~E6!kTtZQ_h|Bx#l>UEaip04fJXUZdLcMqXh"
    b"}dtS_;ki*36jyP@HL3JEgW=owx);9e^#z3bDIVpNrp6?`lU8Q<=V=@u5*P%sAf2v2j37KJ?yfq!l)g@`SjW_K*?l0Tg<JNR8*4cH7+TE0G^S"
    b"kL@S=`_73e}EEG*^G-eaLpKJ{}McIg9gYp5?3JPEBj|%}Z=sENv$Jd}=mqw_9va)xBK*vmUSi*`^TmX#LL&>*@NR^?3c?p)WmG|1-Voy5|3~"
    b"{_h57FV+7+)$iH*pAM(t^mP5-Ej{;A{qNSDz50Kz{@<(r_v-(>`hTzf@4fop?A8ChT>n4Vz}~3;y9C)@{oh0NKfA9I?XCL%f4Q!9(f"
)
