"""Rendering of the camera images: a simple perspective view in numpy."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.drive.bitmap_font import text_bitmap
from tools.drive.motion import Floats
from tools.drive.scene import ROAD_CENTRE_M, ROAD_LEFT_EDGE_M, ROAD_RIGHT_EDGE_M, Boxes, Scene

Image = npt.NDArray[np.uint8]
# Depth and rightward distance of the left end of a wall, then of its right end.
_Wall = tuple[float, float, float, float]
Floats32 = npt.NDArray[np.float32]  # type of values per pixel

_CAMERA_HEIGHT_M = 1.6
_NEAR_M = 0.5
_FAR_M = 110.0
_HAZE = np.array([196, 208, 220], dtype=np.float64)
_HAZE_LEVELS = 16
_HILLS = np.array([128, 150, 160], dtype=np.uint8)
_HORIZON = 0.45  # distance from the top, as a share of the image height
_ROAD_STEP_M = 0.25  # step of the table of road positions relative to the car
_ROAD_REACH_M = 120.0
_SQUARE_M = np.float32(6.0)  # side of a grass square
_SQUARE_SHIFT = np.float32(4096.0)
_SECTION_BEGIN_M = np.float32(-4.0)  # start of the table of the kinds of ground across the road
_SECTION_STEP_M = np.float32(0.04)

# The kinds of ground, and their colours without haze.
_GRASS, _GRASS_DARK, _VERGE, _ASPHALT, _WHITE_LINE, _YELLOW_LINE = range(6)
_GROUND = np.array(
    [(104, 142, 74), (88, 126, 62), (160, 150, 128), (78, 80, 86), (236, 236, 232), (244, 196, 48)],
    dtype=np.float64,
)
_WINDOW = np.array([52, 64, 84], dtype=np.uint8)


@dataclass(frozen=True)
class CameraMount:
    """The mount of a camera on the car; ``yaw_deg`` is counter-clockwise from the forward direction."""

    name: str
    yaw_deg: float
    view_deg: float


# Directions and angles of view are those of the nuScenes cars (nuscenes.org/nuscenes#data-collection).
MOUNTS = (
    CameraMount("cam_front", 0.0, 70.0),
    CameraMount("cam_front_left", 55.0, 70.0),
    CameraMount("cam_front_right", -55.0, 70.0),
    CameraMount("cam_back", 180.0, 110.0),
    CameraMount("cam_back_left", 110.0, 70.0),
    CameraMount("cam_back_right", -110.0, 70.0),
)


class Camera:
    """A camera that renders images of a scene.

    Args:
        scene: scene to render.
        mount: name, direction and angle of view of the camera.
        size: height and width of the images in pixels.
    """

    def __init__(self, scene: Scene, mount: CameraMount, size: tuple[int, int]) -> None:
        height, width = size
        self._scene = scene
        self._yaw_rad = np.deg2rad(mount.yaw_deg)
        self._focal = width / 2 / np.tan(np.deg2rad(mount.view_deg) / 2)
        self._centre = (width - 1) / 2
        self._horizon = round(height * _HORIZON)
        self._size = size
        self._text_scale = max(1, width // 160)
        self._name = text_bitmap(mount.name.removeprefix("cam_").replace("_", " ").upper(), self._text_scale)
        rows = np.arange(self._horizon)
        self._sky_rows = rows[:, None]
        blue = np.array([92, 148, 214], dtype=np.float64)
        self._sky = (blue + (_HAZE - blue) * (rows / self._horizon)[:, None]).astype(np.uint8)
        self._azimuth_rad = self._yaw_rad - np.arctan((np.arange(width) - self._centre) / self._focal)
        self._ground_x_m, self._ground_y_m, haze = self._ground_positions()
        self._road_index = np.rint((self._ground_x_m + _ROAD_REACH_M) / _ROAD_STEP_M).astype(np.int32)
        self._haze_offset = (haze * (_HAZE_LEVELS - 1)).astype(np.uint8) * np.uint8(len(_GROUND))

    def render(self, time_s: float, clock_text: str, *, flash: bool) -> Image:
        """Renders the view at ``time_s`` seconds from the start of the drive.

        Args:
            time_s: time in seconds.
            clock_text: text that is burned in below the name of the camera (see :func:`clock_text`).
            flash: whether the white square of a audio event is drawn in the lower right corner.

        Returns:
            RGB, uint8, shape (height, width, 3).
        """
        height, width = self._size
        state = self._scene.drive.state_at(np.array([time_s]))
        pose = (float(state.x_m[0]), float(state.y_m[0]), float(state.heading_rad[0]))
        image = np.empty((height, width, 3), dtype=np.uint8)
        self._draw_sky(image[: self._horizon], pose[2])
        self._draw_ground(image[self._horizon :], pose, float(state.arc_m[0]))
        self._draw_boxes(image, self._scene.boxes(time_s), pose)
        _burn_in(image, self._name, 0)
        _burn_in(image, text_bitmap(clock_text, self._text_scale), self._name.shape[0])
        if flash:
            side = height // 5
            image[-side:, -side:] = 255
        return image

    def _ground_positions(self) -> tuple[Floats32, Floats32, Floats]:
        """Returns x and y in the vehicle frame (metres) and haze (0 to 1) of every pixel below the horizon."""
        height, width = self._size
        below = np.arange(self._horizon, height)[:, None] - self._horizon + 0.5
        depth = np.minimum(_CAMERA_HEIGHT_M * self._focal / below, _FAR_M)
        forward = np.broadcast_to(depth, (len(below), width))
        right = forward * ((np.arange(width) - self._centre) / self._focal)
        cos, sin = np.cos(self._yaw_rad), np.sin(self._yaw_rad)
        x = np.clip(forward * cos + right * sin, -_ROAD_REACH_M, _ROAD_REACH_M)
        y = forward * sin - right * cos
        return x.astype(np.float32), y.astype(np.float32), np.minimum(forward / _FAR_M, 1.0)

    def _draw_sky(self, image: Image, heading_rad: float) -> None:
        """Draws a sky that is paler near the horizon, and hills that move with the direction of the car."""
        azimuth = self._azimuth_rad + heading_rad
        long, middle, short = self._scene.hills
        waves = 3.0 + np.sin(3 * azimuth + long) + np.sin(7 * azimuth + middle)
        waves += 0.5 * np.sin(17 * azimuth + short)
        hills = self._horizon - 0.06 * self._horizon * waves
        image[:] = self._sky[:, None, :]
        top = int(hills.min())
        image[top:][self._sky_rows[top:] >= hills] = _HILLS

    def _draw_ground(self, image: Image, pose: tuple[float, float, float], arc_m: float) -> None:
        """Draws grass in squares that are fixed in the world, and the road with its lines and dashes."""
        left_m, along_m = self._road_from_car(pose, arc_m)
        aside = self._ground_y_m - left_m.take(self._road_index)
        section = np.clip((aside - _SECTION_BEGIN_M) / _SECTION_STEP_M, 0, len(_section()) - 1)
        kind = _section().take(section.astype(np.int32))
        line = np.flatnonzero(kind == _YELLOW_LINE)
        between_dashes = along_m.take(self._road_index.take(line)) % 8.0 > 4.0
        kind.flat[line[between_dashes]] = _ASPHALT
        # The shift makes all coordinates positive, so that truncation rounds all of them down.
        x, y, heading = (np.float32(value) for value in pose)
        cos, sin = np.cos(heading) / _SQUARE_M, np.sin(heading) / _SQUARE_M
        east = cos * self._ground_x_m - sin * self._ground_y_m + (x / _SQUARE_M + _SQUARE_SHIFT)
        north = sin * self._ground_x_m + cos * self._ground_y_m + (y / _SQUARE_M + _SQUARE_SHIFT)
        odd = (east.astype(np.int32) + north.astype(np.int32)) & 1
        kind[(kind == _GRASS) & (odd == 1)] = _GRASS_DARK
        np.take(_ground_palette(), kind + self._haze_offset, axis=0, out=image, mode="clip")

    def _road_from_car(self, pose: tuple[float, float, float], arc_m: float) -> tuple[Floats32, Floats]:
        """Returns, for each step of forward distance, the leftward distance of the road and the distance along the road."""
        x, y, heading = pose
        distances_m = np.arange(-_ROAD_REACH_M, _ROAD_REACH_M + 1.0, 2.0)
        line_x, line_y, _ = self._scene.drive.road_pose(arc_m + distances_m)
        east, north = line_x - x, line_y - y
        cos, sin = np.cos(heading), np.sin(heading)
        forward = np.maximum.accumulate(cos * east + sin * north)
        steps = np.arange(-_ROAD_REACH_M, _ROAD_REACH_M + _ROAD_STEP_M, _ROAD_STEP_M)
        left = np.interp(steps, forward, cos * north - sin * east).astype(np.float32)
        return left, np.interp(steps, forward, arc_m + distances_m)

    def _draw_boxes(self, image: Image, boxes: Boxes, pose: tuple[float, float, float]) -> None:
        """Draws the visible walls of all boxes in range, the farthest first."""
        depth, right = self._corners(boxes, pose)
        centre = depth.mean(axis=1)
        aside = np.abs(right).min(axis=1) - depth.max(axis=1) * (self._centre + 1) / self._focal
        distance = np.hypot(centre, right.mean(axis=1)).round(2)  # equal for the two boxes of one car
        visible = np.flatnonzero((depth.max(axis=1) > _NEAR_M) & (distance < _FAR_M) & (aside < 0))
        top_m = boxes.span_m[:, 1]
        for box in visible[np.lexsort((-top_m[visible], -distance[visible]))]:
            for corner in range(4):
                start, stop = corner, (corner + 1) % 4
                wall = (depth[box, start], right[box, start], depth[box, stop], right[box, stop])
                # Corners are in counter-clockwise order, so a wall faces the camera if it extends from left to right.
                if wall[0] * wall[3] - wall[2] * wall[1] > 0:
                    shade = 1.0 if corner % 2 else 0.78
                    haze = min(distance[box] / _FAR_M, 1.0) ** 2
                    colour = (boxes.colour[box] * (shade * (1 - haze)) + _HAZE * haze).astype(np.uint8)
                    self._draw_wall(image, wall, boxes.span_m[box], colour, bool(boxes.windows[box]))

    def _corners(self, boxes: Boxes, pose: tuple[float, float, float]) -> tuple[Floats, Floats]:
        """Returns depth and rightward distance from the camera of the four corners of each box, both of shape (N, 4)."""
        x, y, heading = pose
        half = boxes.size_m[:, None, :] / 2 * np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
        cos, sin = np.cos(boxes.heading_rad)[:, None], np.sin(boxes.heading_rad)[:, None]
        east = boxes.x_m[:, None] - x + cos * half[..., 0] - sin * half[..., 1]
        north = boxes.y_m[:, None] - y + sin * half[..., 0] + cos * half[..., 1]
        direction = heading + self._yaw_rad
        cos, sin = np.cos(direction), np.sin(direction)
        return cos * east + sin * north, sin * east - cos * north

    def _draw_wall(self, image: Image, wall: _Wall, span_m: Floats, colour: Image, windows: bool) -> None:
        """Draws one upright wall by columns: 1 / depth and the top and bottom edges are linear in the column."""
        depth0, right0, depth1, right1 = wall
        length_m = float(np.hypot(depth1 - depth0, right1 - right0))
        begin, end = _clip(depth0, depth1)
        if begin >= end:
            return
        depth0, depth1 = depth0 + (depth1 - depth0) * begin, depth0 + (depth1 - depth0) * end
        right0, right1 = right0 + (right1 - right0) * begin, right0 + (right1 - right0) * end
        left = self._centre + self._focal * right0 / depth0
        stop = self._centre + self._focal * right1 / depth1
        columns = np.arange(max(0, int(np.ceil(left))), min(self._size[1], int(np.floor(stop)) + 1))
        if not len(columns):
            return
        part = (columns - left) / (stop - left)
        inverse_depth = 1 / depth0 + part * (1 / depth1 - 1 / depth0)
        scale = self._focal * inverse_depth
        bottom = self._horizon - scale * (span_m[0] - _CAMERA_HEIGHT_M)
        top = self._horizon - scale * (span_m[1] - _CAMERA_HEIGHT_M)
        rows = np.arange(max(0, int(top.min())), min(self._size[0], int(bottom.max()) + 1))[:, None]
        if not len(rows):
            return
        inside = (rows >= top) & (rows < bottom)
        region = image[rows[0, 0] : rows[-1, 0] + 1, columns[0] : columns[-1] + 1]
        region[inside] = colour
        if windows:
            along_m = (begin + (end - begin) * part / depth1 / inverse_depth) * length_m
            up_m = (self._horizon - rows) / scale + _CAMERA_HEIGHT_M
            glass = inside & (_fraction(along_m / 2.6) > 0.5)
            glass &= _fraction(up_m / 3.0) > 0.47
            region[glass] = colour // 2 + _WINDOW // 2


def clock_text(t_ns: int) -> str:
    """Returns the burned-in text of a time: seconds on the clock ``rig``, rounded to the nearest millisecond."""
    milliseconds = (t_ns + 500_000) // 1_000_000
    return f"{milliseconds // 1000}.{milliseconds % 1000:03d}"


def _burn_in(image: Image, bitmap: npt.NDArray[np.bool_], row: int) -> None:
    """Writes white text on black at the left edge; the part that does not fit is cut off."""
    region = image[row : row + bitmap.shape[0], : bitmap.shape[1]]
    region[:] = np.where(bitmap[: region.shape[0], : region.shape[1], None], np.uint8(255), np.uint8(0))


def _fraction(values: Floats) -> Floats:
    return values - np.floor(values)


def _clip(depth0: float, depth1: float) -> tuple[float, float]:
    """Returns the part of a wall that is beyond the near plane, as two fractions of the wall length."""
    if min(depth0, depth1) >= _NEAR_M:
        return 0.0, 1.0
    if max(depth0, depth1) <= _NEAR_M:
        return 0.0, 0.0
    crossing = (_NEAR_M - depth0) / (depth1 - depth0)
    return (crossing, 1.0) if depth0 < _NEAR_M else (0.0, crossing)


@functools.cache
def _section() -> Image:
    """Returns the kind of ground across the road, in steps from right to left; both ends are grass."""
    aside = float(_SECTION_BEGIN_M) + (np.arange(300) + 0.5) * float(_SECTION_STEP_M)
    kind = np.full(aside.shape, _GRASS, dtype=np.uint8)
    kind[(aside > ROAD_RIGHT_EDGE_M - 1.5) & (aside < ROAD_LEFT_EDGE_M + 1.5)] = _VERGE
    kind[(aside > ROAD_RIGHT_EDGE_M - 0.3) & (aside < ROAD_LEFT_EDGE_M + 0.3)] = _ASPHALT
    edge = np.minimum(np.abs(aside - ROAD_RIGHT_EDGE_M), np.abs(aside - ROAD_LEFT_EDGE_M))
    kind[edge < 0.12] = _WHITE_LINE
    kind[np.abs(aside - ROAD_CENTRE_M) < 0.12] = _YELLOW_LINE
    return kind


@functools.cache
def _ground_palette() -> Image:
    """Returns RGB colours by haze level and kind of ground; the index is ``level * kinds + kind``."""
    haze = np.linspace(0.0, 1.0, _HAZE_LEVELS)[:, None, None]
    return (_GROUND * (1 - haze) + _HAZE * haze).reshape(-1, 3).astype(np.uint8)
