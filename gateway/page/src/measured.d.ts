declare module "virtual:measured" {
  const measured: import("./lib/model.ts").Measured;
  export default measured;
}
