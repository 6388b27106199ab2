// Prints a token with the claims of the first argument: what a site's login would give.
import jwt from "jsonwebtoken";

console.log(jwt.sign(JSON.parse(process.argv[2]), process.env.JWT_SECRET, { expiresIn: "1h" }));
