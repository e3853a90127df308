"use strict";
// The 3D scene of one grasp: the object, both hands bent by their joints, and the contacts. Meters, +z is up.

const FILL = 0.86; // share of the picture's width or height that a grasp takes

function array(packed) {
  const bytes = Uint8Array.from(atob(packed.data), c => c.charCodeAt(0));
  const kinds = {"<f4": Float32Array, "<u2": Uint16Array, "<u4": Uint32Array};
  return new kinds[packed.dtype](bytes.buffer);
}

function geometry(mesh) {
  const surface = new THREE.BufferGeometry();
  surface.setAttribute("position", new THREE.BufferAttribute(array(mesh.vertices), 3));
  surface.setIndex(new THREE.BufferAttribute(array(mesh.faces), 1));
  surface.computeVertexNormals();
  return surface;
}

function material(rgb, more) {
  const color = new THREE.Color(...rgb).convertSRGBToLinear();
  return new THREE.MeshStandardMaterial({color, roughness: 0.62, metalness: 0, side: THREE.DoubleSide, ...more});
}

function solid(shape, look) {
  const mesh = new THREE.Mesh(shape, look);
  mesh.castShadow = mesh.receiveShadow = true;
  return mesh;
}

// A hand as a tree of frames: `bend` puts it where place, quaternion and joint values say.
class Hand {
  constructor(data, side, meshes, look) {
    const hand = data.sides[side], fixed = array(hand.fixed), axes = array(hand.axis);
    this.links = data.parent.map((parent, i) => {
      const link = new THREE.Object3D();
      link.position.fromArray(fixed, 7 * i);
      link.quaternion.fromArray(fixed, 7 * i + 3);
      return link;
    });
    data.parent.forEach((parent, i) => { if (parent >= 0) this.links[parent].add(this.links[i]); });
    this.root = this.links[0];
    this.joints = data.joint_link.map((link, j) => ({
      link: this.links[link],
      rest: this.links[link].quaternion.clone(),
      axis: new THREE.Vector3().fromArray(axes, 3 * j),
    }));
    for (const shape of hand.shapes) {
      const mesh = solid(meshes[shape.mesh], look);
      mesh.position.fromArray(shape.pose);
      mesh.quaternion.fromArray(shape.pose, 3);
      this.links[shape.link].add(mesh);
    }
  }

  bend(place, quaternion, angles) {
    this.root.position.copy(place);
    this.root.quaternion.copy(quaternion);
    const turn = new THREE.Quaternion();
    this.joints.forEach((joint, j) => {
      turn.setFromAxisAngle(joint.axis, angles[j]);
      joint.link.quaternion.copy(joint.rest).multiply(turn);
    });
  }
}

class Scene {
  constructor(canvas) {
    this.canvas = canvas;
    this.renderer = new THREE.WebGLRenderer({canvas, antialias: true});
    this.renderer.outputEncoding = THREE.sRGBEncoding;
    this.renderer.shadowMap.enabled = true;
    this.renderer.shadowMap.type = THREE.PCFSoftShadowMap;
    this.camera = new THREE.PerspectiveCamera(28, 1, 0.01, 20);
    this.camera.up.set(0, 0, 1);
    this.aside = this.camera.clone();
    this.controls = new THREE.TrackballControls(this.camera, canvas);
    Object.assign(this.controls, {rotateSpeed: 2.4, zoomSpeed: 1.1, panSpeed: 0.5, staticMoving: true});
    this.controls.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    const turn = () => { requestAnimationFrame(turn); this.controls.update(); };
    turn();
  }

  load(data) {
    this.data = data;
    this.poses = array(data.poses);
    this.contactRows = array(data.contacts);
    this.objects = data.objects.map(() => null);
    this.world = new THREE.Scene();
    this.world.background = new THREE.Color(...data.background); // three.js clears with it as it is
    this.looks = data.colors.map(rgb => material(rgb));
    const meshes = data.hands.meshes.map(geometry);
    this.hands = data.sides.map((_, side) => new Hand(data.hands, side, meshes, this.looks[side]));
    this.object = solid(new THREE.BufferGeometry(), this.looks[2]);
    this.marks = new THREE.Group();
    this.world.add(this.object, this.marks, ...this.hands.map(hand => hand.root), this.camera);
    this.light();
    const ball = new THREE.SphereGeometry(1, 16, 12), shaft = new THREE.CylinderGeometry(1, 1, 1, 10);
    this.arrow = [ball, shaft, new THREE.ConeGeometry(1, 1, 16)];
    this.arrowLooks = data.colors.map(rgb => material(rgb.map(x => 0.55 * x), {roughness: 1}));
  }

  // Lights go with the camera: the key from the upper left, which casts shadows, and the fill from the right.
  light() {
    this.camera.clear();
    this.world.add(new THREE.HemisphereLight(0xffffff, 0xc9c4bd, 0.62));
    const key = new THREE.DirectionalLight(0xffffff, 0.62), fill = new THREE.DirectionalLight(0xffffff, 0.22);
    key.position.set(-0.5, 0.8, 0.4);
    fill.position.set(0.9, 0.1, 0.3);
    key.castShadow = true;
    key.shadow.mapSize.set(1024, 1024);
    Object.assign(key.shadow.camera, {left: -0.5, right: 0.5, top: 0.5, bottom: -0.5, near: -2, far: 4});
    key.shadow.normalBias = 0.002;
    key.shadow.radius = 3;
    this.lights = [key, fill];
    this.lights.forEach(light => { this.camera.add(light); this.world.add(light.target); });
  }

  // Place, quaternion and joint values of one hand; null where the stage is not known.
  pose(grasp, stage, side) {
    const [, stages, sides, width] = this.data.poses.shape;
    const row = this.poses.subarray(((grasp * stages + stage) * sides + side) * width).subarray(0, width);
    if (!row.every(Number.isFinite)) return null;
    const place = new THREE.Vector3().fromArray(row), turn = new THREE.Quaternion().fromArray(row, 3);
    return {place, turn, angles: row.subarray(7)};
  }

  stages(grasp) {
    const known = stage => this.pose(grasp, stage, 0) && this.pose(grasp, stage, 1);
    return this.data.stages.map((_, stage) => stage).filter(known);
  }

  // Shows a grasp between two of its stages; `part` is 0 at the first of them, 1 at the second.
  show(grasp, from, to, part) {
    this.hands.forEach((hand, side) => {
      const a = this.pose(grasp, from, side), b = this.pose(grasp, to, side);
      const angles = Array.from(a.angles, (angle, j) => angle + part * (b.angles[j] - angle));
      hand.bend(a.place.lerp(b.place, part), a.turn.slerp(b.turn, part), angles);
    });
    const row = this.data.grasps[grasp];
    this.objects[row.object] ??= geometry(this.data.objects[row.object]);
    this.object.geometry = this.objects[row.object];
    this.object.scale.setScalar(row.scale);
    this.world.updateMatrixWorld(true);
  }

  // The chosen contacts with the object's outward normals, in the hands' colors.
  mark(grasp, shown) {
    this.marks.clear();
    if (!shown) return;
    const [, sides, contacts] = this.data.contacts.shape;
    for (let i = 0; i < sides * contacts; i++) {
      const row = this.contactRows.subarray(6 * (grasp * sides * contacts + i)).subarray(0, 6);
      if (row.every(Number.isFinite)) this.marks.add(this.contact(row, this.arrowLooks[Math.floor(i / contacts)]));
    }
  }

  contact(row, look) {
    const group = new THREE.Group(), [ball, shaft, tip] = this.arrow.map(shape => new THREE.Mesh(shape, look));
    ball.scale.setScalar(0.0055);
    shaft.scale.set(0.002, 0.03, 0.002);
    shaft.position.y = 0.015;
    tip.scale.set(0.005, 0.012, 0.005);
    tip.position.y = 0.034;
    group.add(ball, shaft, tip);
    group.position.fromArray(row);
    group.quaternion.setFromUnitVectors(new THREE.Vector3(0, 1, 0), new THREE.Vector3().fromArray(row, 3).normalize());
    return group;
  }

  seeThrough(glass) {
    Object.assign(this.looks[2], {transparent: glass, opacity: glass ? 0.35 : 1, depthWrite: !glass});
    this.looks[2].needsUpdate = true;
  }

  bounds() {
    const box = new THREE.Box3();
    [this.object, ...this.hands.map(hand => hand.root)].forEach(body => box.expandByObject(body));
    return box.getBoundingSphere(new THREE.Sphere());
  }

  // Looks from a side at all of what is shown; without one, across the line between the hands.
  look(side) {
    const [azimuth, elevation] = (side ?? this.across()).map(THREE.MathUtils.degToRad);
    const level = Math.cos(elevation);
    const aim = new THREE.Vector3(level * Math.cos(azimuth), level * Math.sin(azimuth), Math.sin(elevation));
    const points = this.points(), target = this.bounds().center.clone();
    const half = Math.tan(THREE.MathUtils.degToRad(this.camera.fov / 2)), seen = new THREE.Vector3();
    let distance = 1;
    this.camera.up.set(0, 0, 1);
    for (let i = 0; i < 10; i++) { // each time the middle and the size of what is seen are put right
      this.camera.position.copy(target).addScaledVector(aim, -distance);
      this.camera.lookAt(target);
      this.camera.updateMatrixWorld();
      const box = new THREE.Box2();
      for (const point of points) {
        seen.copy(point).applyMatrix4(this.camera.matrixWorldInverse);
        box.expandByPoint(new THREE.Vector2(seen.x, seen.y).divideScalar(-seen.z));
      }
      const middle = box.getCenter(new THREE.Vector2()).multiplyScalar(distance);
      const size = box.getSize(new THREE.Vector2());
      target.add(new THREE.Vector3(middle.x, middle.y, 0).applyQuaternion(this.camera.quaternion));
      distance *= Math.max(size.x / this.camera.aspect, size.y) / (2 * half * FILL);
    }
    this.camera.position.copy(target).addScaledVector(aim, -distance);
    this.controls.target.copy(target);
    this.radius = this.bounds().radius;
  }

  // Some points of the object and the corners of each link's shapes, in the world.
  points() {
    const points = [], place = this.object.geometry.getAttribute("position"), step = Math.ceil(place.count / 600);
    const add = (point, where) => points.push(point.applyMatrix4(where.matrixWorld));
    for (let i = 0; i < place.count; i += step) add(new THREE.Vector3().fromBufferAttribute(place, i), this.object);
    this.hands.forEach(hand => hand.root.traverse(mesh => {
      if (!mesh.isMesh) return;
      if (!mesh.geometry.boundingBox) mesh.geometry.computeBoundingBox();
      const {min, max} = mesh.geometry.boundingBox;
      for (const x of [min.x, max.x]) for (const y of [min.y, max.y]) for (const z of [min.z, max.z]) {
        add(new THREE.Vector3(x, y, z), mesh);
      }
    }));
    return points;
  }

  across() {
    const line = this.hands[1].root.position.clone().sub(this.hands[0].root.position);
    return [THREE.MathUtils.radToDeg(Math.atan2(line.y, line.x)) + 90, -22];
  }

  // Keeps what is shown as large as it was, when the hands are farther apart than before.
  follow() {
    const ball = this.bounds(), factor = ball.radius / this.radius;
    const offset = this.camera.position.clone().sub(this.controls.target);
    this.controls.target.copy(ball.center);
    this.camera.position.copy(ball.center).addScaledVector(offset, factor);
    this.radius = ball.radius;
  }

  resize() {
    this.fit();
    this.draw();
  }

  fit() {
    const box = this.canvas.parentElement.getBoundingClientRect();
    if (!box.width || !box.height) return;
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this.renderer.setSize(box.width, box.height, false);
    this.camera.aspect = box.width / box.height;
    this.camera.updateProjectionMatrix();
    this.controls.handleResize();
  }

  draw() {
    if (this.world && this.radius) this.renderer.render(this.world, this.camera);
  }

  // World matrices of all links of both hands, column by column, as three.js has them.
  frames() {
    return this.hands.map(hand => hand.links.map(link => link.matrixWorld.elements.slice()));
  }

  // A small picture of a grasp, for pages that came without.
  picture(grasp, width, height) {
    this.aside.copy(this.camera, false);
    const target = this.controls.target.clone();
    const stage = this.data.stages.indexOf("grasp");
    this.show(grasp, stage, stage, 0);
    this.marks.visible = false;
    this.renderer.setPixelRatio(1);
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.look(null);
    this.draw();
    const url = this.canvas.toDataURL("image/webp", 0.82);
    this.marks.visible = true;
    ["position", "quaternion", "up"].forEach(name => this.camera[name].copy(this.aside[name]));
    this.controls.target.copy(target);
    return url;
  }
}
